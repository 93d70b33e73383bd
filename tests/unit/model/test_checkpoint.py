"""Checkpoints as they come: our own, published layouts, and damaged ones."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import CheckpointError, VocabularyError
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.model.layout import MADE_FROM_WEIGHTS
from scdiva_core.model.network import ScDiVaModel

State = dict[str, torch.Tensor]


def vocabulary(size: int = 60) -> GeneVocabulary:
    return GeneVocabulary(["<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>", *(f"GENE{i}" for i in range(size - 5))])


@pytest.fixture
def model(tiny_model: Callable[..., ScDiVaModel]) -> ScDiVaModel:
    """With the latent head, a vocabulary, entropies and a card."""
    made = tiny_model(heads=("latent",))
    made.vocabulary = vocabulary()
    made.tokenizer = Tokenizer(np.linspace(0.1, 1, 60, dtype=np.float32), 40)
    made.has_entropy = True
    made.card = {"name": "test", "training": {"seed": 3}}
    return made


@pytest.fixture
def folder(model: ScDiVaModel, tmp_path: Path) -> Path:
    save_pretrained(model, tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def as_torch_file(folder: Path, name: str, content: object) -> Path:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / name)
    return folder / name


def same_weights(one: ScDiVaModel, two: ScDiVaModel) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_round_trip_is_exact(model: ScDiVaModel, folder: Path) -> None:
    loaded = load_pretrained(folder)
    assert same_weights(loaded, model)
    assert loaded.config == model.config
    assert loaded.vocabulary.tokens == model.vocabulary.tokens
    assert np.array_equal(loaded.tokenizer.entropy, model.tokenizer.entropy)
    assert loaded.tokenizer.max_genes == 40
    assert loaded.has_entropy
    assert loaded.card == model.card
    assert not loaded.training


def test_methods_of_the_model_do_the_same(model: ScDiVaModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "new" / "folder")
    assert same_weights(ScDiVaModel.from_pretrained(tmp_path / "new" / "folder"), model)
    assert same_weights(ScDiVaModel.from_pretrained(str(tmp_path / "new" / "folder")), model)


def test_sha256_is_that_of_the_weights_file(folder: Path) -> None:
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert load_pretrained(folder).sha256 == expected


def test_half_precision_file_loads_as_float32_within_its_rounding(model: ScDiVaModel, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "full")
    save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_pretrained(tmp_path / "half")
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert not same_weights(loaded, model)


def test_saving_leaves_no_temporary_file_and_replaces_older_ones(model: ScDiVaModel, folder: Path) -> None:
    with torch.no_grad():
        model.final_norm.weight.fill_(2.0)
    save_pretrained(model, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json",
        "config.json",
        "model.safetensors",
        "serialization.safetensors",
        "vocab.json",
    ]
    assert same_weights(load_pretrained(folder), model)


def test_saving_over_another_checkpoint_keeps_nothing_of_it(model: ScDiVaModel, folder: Path) -> None:
    model.has_entropy, model.card = False, {}
    for name in MADE_FROM_WEIGHTS:
        (folder / name).write_text("of other weights")
    save_pretrained(model, folder)
    loaded = load_pretrained(folder)
    assert not loaded.has_entropy
    assert loaded.card == {}
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "vocab.json"]


def test_a_model_without_vocabulary_is_not_saved(tiny_model: Callable, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="has no vocabulary"):
        save_pretrained(tiny_model(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt", "model.pth"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod."])
def test_torch_files_in_their_usual_wrappings(
    model: ScDiVaModel, folder: Path, name: str, wrapper: str | None, prefix: str
) -> None:
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    content = state if wrapper is None else {"epoch": 3, wrapper: state}
    path = as_torch_file(folder, name, content)
    assert same_weights(load_pretrained(folder), model)
    assert same_weights(load_pretrained(path), model)


def test_a_tensor_beside_the_wrapped_state_dict_does_not_hide_it(model: ScDiVaModel, folder: Path) -> None:
    as_torch_file(folder, "model.pt", {"loss": torch.tensor(0.5), "model_state_dict": model.state_dict()})
    assert same_weights(load_pretrained(folder), model)


def test_a_single_safetensors_file_of_any_name_is_found(model: ScDiVaModel, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "scdiva-base.safetensors")
    assert same_weights(load_pretrained(folder), model)
    for name in MADE_FROM_WEIGHTS:
        (folder / name).write_text("no weights")
    assert same_weights(load_pretrained(folder), model)
    shutil.copy(folder / "scdiva-base.safetensors", folder / "other.safetensors")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_pretrained(folder)


def test_published_layout_without_heads_entropies_and_card(
    tiny_model: Callable[..., ScDiVaModel], tmp_path: Path
) -> None:
    published = tiny_model(num_heads=8, pad_fill_id=57, bos_id=58, eos_id=59)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    vocabulary().to_file(tmp_path / "vocab.json")
    capitals = {"HIDDEN_DIM": 32, "N_LAYERS": 2, "N_HEADS": 8, "D_HID": 48, "VOCAB_SIZE": 60}
    capitals |= {"PAD_FILL_GENE_ID": 57, "BOS_GENE_ID": 58, "EOS_GENE_ID": 59, "MAX_GENE_LEN": 77}
    (tmp_path / "config.json").write_text(json.dumps(capitals))
    loaded = load_pretrained(tmp_path)
    assert same_weights(loaded, published)
    assert loaded.config.value_head_size == 16, "left out of the file, taken from the shapes"
    assert (loaded.config.num_heads, loaded.config.max_genes) == (8, 77)
    assert loaded.config.heads == ()
    assert not loaded.has_entropy
    assert (loaded.tokenizer.entropy == 1).all()
    assert loaded.card == {}


def test_published_layout_without_config(tiny_config: Callable, tmp_path: Path) -> None:
    defaults = {"pad_fill_id": 41815, "bos_id": 41816, "eos_id": 41817, "num_heads": 8, "max_genes": 1200}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        published = ScDiVaModel(tiny_config(41818, **defaults))
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary(41818).tokens))
    loaded = load_pretrained(tmp_path)
    assert same_weights(loaded, published)
    assert loaded.config.num_layers == 2
    assert loaded.config.reserved_ids == (0, 1, 41815, 41816, 41817)


def test_reserved_ids_that_the_network_lacks_ask_for_a_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="pad_fill_id is 41815, but there are 60 token ids") as caught:
        load_pretrained(folder)
    assert "config.json" in caught.value.hint


@pytest.mark.parametrize("text", ["{", "[1, 2]", "nonsense"])
def test_config_that_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "value_head_size"])
def test_config_with_an_absurd_size_is_refused_and_not_built(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: 4 * 10**9}))
    with pytest.raises(CheckpointError, match=rf"{name} is 4000000000 in config\.json"):
        load_pretrained(folder)


def test_missing_vocabulary(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    with pytest.raises(VocabularyError, match=r"none of vocab\.json, vocab\.txt, gene_vocab\.csv lies in"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["vocab.txt", "gene_vocab.csv"])
def test_other_vocabulary_formats(folder: Path, name: str) -> None:
    (folder / "vocab.json").unlink()
    tokens = vocabulary().tokens
    lines = ["gene,id", *(f"{token},{i}" for i, token in enumerate(tokens))] if name[-1] == "v" else tokens
    (folder / name).write_text("\n".join(lines) + "\n")
    assert load_pretrained(folder).vocabulary.tokens == tokens


def test_vocabulary_of_another_size(folder: Path) -> None:
    vocabulary(59).to_file(folder / "vocab.json")
    with pytest.raises(VocabularyError, match="has 59 tokens, the network 60"):
        load_pretrained(folder)


def test_wrong_shapes_name_the_first_three_tensors(folder: Path) -> None:
    def transpose(state: State) -> State:
        for name in ("input_proj.weight", "layers.0.mlp.up_proj.weight", "value_encoder.0.weight"):
            state[name] = state[name].T[:-1].contiguous() if name[0] == "i" else state[name].T.contiguous()
        state["final_norm.weight"] = state["final_norm.weight"][:5].clone()
        return state

    rewrite(folder, transpose)
    with pytest.raises(CheckpointError, match="does not fit the network") as caught:
        load_pretrained(folder)
    message = caught.value.message
    assert "value_encoder.0.weight is [1, 32], expected [32, 1]" in message
    assert "input_proj.weight is [31, 32], expected [32, 32]" in message
    assert "layers.0.mlp.up_proj.weight is [32, 48], expected [48, 32]" in message
    assert "final_norm" not in message
    assert message.endswith("and 1 more.")


def test_missing_and_surplus_tensors_are_named(folder: Path) -> None:
    def change(state: State) -> State:
        del state["final_norm.weight"]
        return {**state, "oracle.weight": torch.ones(3)}

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(folder)
    assert "final_norm.weight is missing; oracle.weight is not part of the network." in caught.value.message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, bad: float) -> None:
    def change(state: State) -> State:
        state["layers.1.attn.q_proj.weight"][3, 4] = bad
        return state

    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=r"layers\.1\.attn\.q_proj\.weight holds NaN or infinite"):
        load_pretrained(folder)


@pytest.mark.parametrize("kind", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_weights(folder: Path, model: ScDiVaModel, kind: str, share: float) -> None:
    if kind == "model.pt":
        as_torch_file(folder, kind, model.state_dict())
    content = (folder / kind).read_bytes()
    (folder / kind).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"cannot be read as weights") as caught:
        load_pretrained(folder)
    assert f"({int(share * len(content)):,} bytes)" in caught.value.message
    assert "truncated" in caught.value.hint


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_pickled_code_is_refused_and_never_run(folder: Path, tmp_path: Path, plain_pickle: bool) -> None:
    mark = tmp_path / "was-run"
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists(), "the payload works"
    mark.unlink()
    if plain_pickle:
        (folder / "model.safetensors").unlink()
        (folder / "model.bin").write_bytes(pickle.dumps({"state_dict": Payload(mark)}))
    else:
        as_torch_file(folder, "model.pt", {"state_dict": {"a": torch.ones(2), "b": Payload(mark)}})
    with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
        load_pretrained(folder)
    assert "never run" in caught.value.hint
    assert not mark.exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 1}, {"state_dict": {}}, {"state_dict": {"a": 1}}])
def test_a_torch_file_without_tensors(folder: Path, content: object) -> None:
    as_torch_file(folder, "model.pt", content)
    with pytest.raises(CheckpointError, match=r"model\.pt holds no table of tensors"):
        load_pretrained(folder)


def test_nothing_is_ever_filled_in_at_random(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights") as caught:
        load_pretrained(tmp_path)
    assert "model.safetensors" in caught.value.hint
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_pretrained(folder)
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_pretrained("not a hub id")


@pytest.mark.parametrize("damage", ["truncated", "other name", "other length"])
def test_damaged_entropies(folder: Path, damage: str) -> None:
    path = folder / "serialization.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:20])
    elif damage == "other name":
        save_file({"entropies": torch.ones(60)}, path)
    else:
        save_file({"entropy": torch.ones(59)}, path)
    with pytest.raises(CheckpointError, match=r"serialization\.safetensors"):
        load_pretrained(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '"name"'])
def test_a_damaged_card_is_no_reason_to_stop(folder: Path, text: str) -> None:
    (folder / "card.json").write_text(text)
    assert load_pretrained(folder).card == {}
