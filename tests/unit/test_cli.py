"""The command line: exit codes, what goes to which stream, and help that helps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from scdiva_core.cli import main
from scdiva_core.data.corpus import Corpus
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.engine import Engine
from scdiva_core.model.network import ScDiVaModel
from tests.labelled_corpus import write_labelled_files, write_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of these tests stay with the tests."""
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scdiva_core", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=100)


def test_embed_from_end_to_end(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "result" / "out.h5ad"
    before = small_h5ad.read_bytes()
    assert main(["embed", str(small_h5ad), "-o", str(out), *model, "--n-neighbors", "10"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n", "the result's path alone, for scripts"
    assert "Embedding cells: 160 of 160" in printed.err
    assert "Drawing the map (UMAP): 3 of 3" in printed.err
    assert small_h5ad.read_bytes() == before
    found = anndata.read_h5ad(out)
    assert found.obsm["X_scdiva"].shape == (160, 8)
    assert found.obsm["X_umap_scdiva"].shape == (160, 2)
    assert found.obs["leiden_scdiva"].nunique() > 1
    assert json.loads(found.uns["scdiva"]["settings"])["X_scdiva"]["n_neighbors"] == 10
    assert json.loads(found.uns["scdiva"]["model"]) == "tiny"


def test_the_real_program_embeds_too(small_h5ad: Path, model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    done = run("embed", small_h5ad, "-o", out, *model, "--no-map")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "Traceback" not in done.stderr
    assert np.isfinite(anndata.read_h5ad(out).obsm["X_scdiva"]).all()


def test_embed_without_a_map_and_again_from_the_store(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one, two = tmp_path / "one.h5ad", tmp_path / "two.h5ad"
    assert main(["embed", str(small_h5ad), "-o", str(one), *model, "--no-map"]) == 0
    assert "Embedding cells" in capsys.readouterr().err
    assert main(["embed", str(small_h5ad), "-o", str(two), *model, "--no-map"]) == 0
    assert "Embedding cells" not in capsys.readouterr().err, "fetched, not computed again"
    first, second = anndata.read_h5ad(one), anndata.read_h5ad(two)
    np.testing.assert_array_equal(first.obsm["X_scdiva"], second.obsm["X_scdiva"])
    assert "X_umap_scdiva" not in first.obsm
    assert "leiden_scdiva" not in first.obs


def test_info_of_a_file_is_json(small_h5ad: Path, model: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["info", str(small_h5ad), *model]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert (content["n_obs"], content["n_vars"], content["genes_known"]) == (160, 1200, 1200)
    assert content["value_kind"] == "counts"
    assert printed.err == ""


def test_info_of_a_checkpoint_is_json(model: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["info", *model]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["name"], content["layers"], content["random_weights"]) == ("tiny", 2, False)


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """Run a command that must end with exit code 1, nothing on standard output and the error as last line."""
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert [line.startswith("error: ") for line in printed.err.splitlines()].count(True) == 1
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_a_file_that_is_no_h5ad(tmp_path: Path, model: list[str], capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "notes.h5ad").write_text("not HDF5")
    error = refused(["info", str(tmp_path / "notes.h5ad"), *model], capsys)
    assert "notes.h5ad" in error
    assert "HDF5" in error
    out = tmp_path / "out.h5ad"
    error = refused(["embed", str(tmp_path / "notes.h5ad"), "-o", str(out), *model], capsys)
    assert "HDF5" in error
    assert not out.exists()


def test_errors_of_the_real_program_have_no_traceback(tmp_path: Path, model: list[str]) -> None:
    done = run("embed", tmp_path / "absent.h5ad", "-o", tmp_path / "out.h5ad", *model)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert "absent.h5ad" in done.stderr


def test_embedding_onto_the_input_is_refused_before_any_work(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = Path(shutil.copy(small_h5ad, tmp_path / "cells.h5ad"))
    before = source.read_bytes()
    assert main(["embed", str(source), "-o", str(source), *model]) == 1
    printed = capsys.readouterr()
    assert "error: cells.h5ad is the input file, which is never changed" in printed.err
    assert "Embedding" not in printed.err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--n-neighbors", "1", "n_neighbors is 1"),
        ("--resolution", "0", r"resolution is 0"),
        ("--matrix", "layers/none", "layers/none"),
        ("--gene-column", "no_such_column", "no_such_column"),
        ("--device", "banana", "The device 'banana' is not available here"),
        ("--compile", "--scheduler=tcp://localhost:1", "--compile is for this machine"),
        ("--checkpoint", "nowhere at all", "There is no checkpoint at nowhere at all"),
    ],
)
def test_choices_that_are_refused(
    small_h5ad: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    option: str,
    value: str,
    message: str,
) -> None:
    out = ["-o", str(tmp_path / "out.h5ad")]
    assert message in refused(["embed", str(small_h5ad), *out, *model, option, value], capsys)


def test_prepare_and_pretrain_make_a_checkpoint_that_embeds(
    corpus_files: list[Path], small_h5ad: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    corpus, trained, out = (str(tmp_path / name) for name in ("corpus", "trained", "out.h5ad"))
    assert main(["prepare", *map(str, corpus_files), "-o", corpus, "--min-cells", "20"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{corpus}\n"
    assert "kang2018.h5ad: 120 cells, 0 labelled, 30 held out" in printed.err
    sizes = "--hidden-size 16 --num-layers 1 --num-heads 2 --intermediate-size 16 --max-genes 30".split()
    short = "--steps 2 --batch-size 8 --finish-cells 16 --finish-steps 2 --device cpu".split()
    short += "--provisional --name small".split()
    assert main(["pretrain", corpus, "-o", trained, *sizes, *short]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{trained}\n"
    assert all("step" in json.loads(line) for line in printed.err.splitlines())
    loaded = ScDiVaModel.from_pretrained(trained)
    assert (loaded.card["name"], loaded.card["provisional"]) == ("small", True)
    assert (loaded.config.max_genes, loaded.config.heads) == (30, ("latent", "batch_integration"))
    assert loaded.config.latent_pooling == "anchor+tokens"
    assert loaded.card["training"]["settings"]["finish_steps"] == 2
    assert loaded.labels is None
    model = ["--checkpoint", trained, "--device", "cpu"]
    assert main(["embed", str(small_h5ad), "-o", out, *model, "--no-map"]) == 0
    assert np.isfinite(anndata.read_h5ad(out).obsm["X_scdiva"]).all()


def test_studies_give_a_checkpoint_that_names_cell_types(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [str(file) for file in write_labelled_files(tmp_path)]
    tables, corpus, trained = str(write_tables(tmp_path / "tables")), str(tmp_path / "corpus"), str(tmp_path / "out")
    assert main(["prepare", *files, "-o", corpus, "--min-cells", "20", "--studies", tables]) == 0
    told = capsys.readouterr().err
    assert "kang.h5ad: 160 cells, 152 labelled, 40 held out" in told
    assert "pbmc.h5ad: 109 cells, 109 labelled, 0 held out" in told
    sizes = "--hidden-size 16 --num-layers 1 --num-heads 2 --intermediate-size 16 --max-genes 30".split()
    short = "--steps 2 --batch-size 8 --finish-cells 16 --finish-steps 2 --device cpu".split()
    assert main(["pretrain", corpus, "-o", trained, *sizes, *short]) == 0
    last = json.loads(capsys.readouterr().err.splitlines()[-2])
    assert last["finish_step"] == 2
    loaded = ScDiVaModel.from_pretrained(trained)
    assert loaded.labels.ids == Corpus(corpus).classes
    assert (loaded.config.num_cell_types, loaded.config.latent_pooling) == (8, "anchor+tokens")
    assert loaded.predict(torch.rand(3, loaded.config.vocab_size)).shape == (3, 8)


def test_studies_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [str(file) for file in write_labelled_files(tmp_path)]
    out, tables = ["-o", str(tmp_path / "corpus")], write_tables(tmp_path / "tables")
    assert "datasets.toml" in refused(["prepare", *files, *out, "--studies", str(tmp_path)], capsys)
    lines = (tables / "labels.tsv").read_text().splitlines()
    (tables / "labels.tsv").write_text("\n".join(line for line in lines if "\tNK\t" not in line))
    error = refused(["prepare", *files, *out, "--studies", str(tables)], capsys)
    assert "The label 'NK' of kang has no meaning yet" in error


def test_prepare_with_a_vocabulary_and_a_donor_column(
    corpus_files: list[Path], small_vocabulary: GeneVocabulary, tmp_path: Path
) -> None:
    cells = anndata.read_h5ad(corpus_files[0])
    cells.obs = cells.obs.rename(columns={"donor": "patient"})
    cells.write_h5ad(tmp_path / "renamed.h5ad")
    small_vocabulary.to_file(tmp_path / "vocab.json")
    options = ["-o", str(tmp_path / "corpus"), "--vocabulary", str(tmp_path / "vocab.json")]
    arguments = ["prepare", str(tmp_path / "renamed.h5ad"), *options]
    assert main([*arguments, "--donor-column", "subject", "patient"]) == 0
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.vocabulary.tokens == small_vocabulary.tokens
    assert len(corpus.cells("validation")) == 30


def test_training_commands_say_what_is_wrong(
    corpus_files: list[Path], corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    nowhere, out = str(tmp_path / "nowhere"), ["-o", str(tmp_path / "out")]
    assert "is not a prepared corpus" in refused(["pretrain", nowhere, *out], capsys)
    assert "steps is 0" in refused(["pretrain", str(corpus_folder), *out, "--steps", "0"], capsys)
    assert "hidden units do not split" in refused(["pretrain", str(corpus_folder), *out, "--num-heads", "7"], capsys)
    assert "nothing can be held out" in refused(["prepare", str(corpus_files[1]), *out], capsys)
    assert "nowhere" in refused(["prepare", nowhere, *out], capsys)


@pytest.mark.parametrize("command", ["prepare", "pretrain"])
def test_folders_that_cannot_be_made(
    corpus_files: list[Path],
    corpus_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    command: str,
) -> None:
    (tmp_path / "file").write_text("in the way")
    source = corpus_files[0] if command == "prepare" else corpus_folder
    error = refused([command, str(source), "-o", str(tmp_path / "file" / "out")], capsys)
    assert str(tmp_path / "file") in error


def test_an_interrupted_command_says_how_to_go_on(
    small_h5ad: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "embed", interrupt)
    assert main(["embed", str(small_h5ad), "-o", str(tmp_path / "out.h5ad"), *model]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_training_on_a_gpu_that_is_not_there(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["pretrain", str(corpus_folder), "-o", str(tmp_path / "out"), "--device", "cuda"]
    assert "The device 'cuda' is not available here" in refused(arguments, capsys)


COMMANDS = (
    *("info", "embed", "annotate", "knockout", "grn", "integrate", "reconstruct"),
    *("prepare", "pretrain", "finetune", "evaluate"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_each_command(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    told = {
        "info": ["Prints JSON", "left out, the checkpoint is described"],
        "embed": ["obsm['X_scdiva']", "The input is never changed", "goes on where it stopped", "hub id"],
        "annotate": ["their consensus is written", "The input is never changed"],
        "knockout": [
            "one perturbation of up to three genes",
            "goes on when the same command is repeated",
            "no experiment",
        ],
        "grn": ["Attention is no proof of regulation", "into one folder a group", "predict knockouts"],
        "integrate": ["types of one batch alone kept apart", "over the union of their genes", "--overlap"],
        "reconstruct": ["genes leak", "kNN imputation", "The input is never changed", "(imputation)"],
        "finetune": ["Make a new checkpoint", "name the file's own cell types"],
        "prepare": ["Whole donors are held out", "raw counts", "(default: 30)", "labels as Cell Ontology terms"],
        "evaluate": ["on sets that it has never seen", "cell types, clusters, batches and annotation"],
        "pretrain": ["resumes when the same command is repeated", "Masked-diffusion", "(default: auto)"],
    }
    for words in told[command]:
        assert words in text


def test_help_lists_every_command_with_examples(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"python -m scdiva_core {command} " in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["embed"],
        ["embed", "cells.h5ad"],
        ["embed", "cells.h5ad", "-o", "out.h5ad", "--values", "tpm"],
        ["pretrain", "corpus", "-o", "out", "--steps", "many"],
        ["pretrain", "corpus", "-o", "out", "--device", "banana"],
        ["pretrain", "corpus", "-o", "out", "--initial-genes", "pca"],
    ],
)
def test_a_wrong_command_line_ends_with_two_and_the_usage(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: ")


def test_examples_of_the_help_are_accepted(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example names files that are not here: it must fail on those, not on its spelling."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    examples = [words[3:] for words in lines if words[:3] == ["python", "-m", "scdiva_core"] and len(words) > 4]
    assert [words[0] for words in examples] == list(COMMANDS)
    for arguments in examples:
        assert main(arguments) == 1
        assert "error: " in capsys.readouterr().err
