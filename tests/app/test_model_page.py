"""The Model page: facts of the running checkpoint, its card, and what was measured of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from scdiva_core.model.checkpoint import file_sha256, load_pretrained, save_pretrained
from scdiva_core.model.network import CellLabels, ScDiVaModel
from tests.app.conftest import texts
from tests.small_evaluation import small_evaluation

README = """---
license: mit
---
# A card

![A map](https://example.org/map.png) of $5 and $6, :red[loud].

| set | share |
|---|---|
| blood | **0.9** |

<script>alert(1)</script>
"""

Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def naming(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that names two cell types."""
    folder = tmp_path_factory.mktemp("naming")
    plain = load_pretrained(checkpoint)
    model = ScDiVaModel(replace(plain.config, heads=("latent", "annotation"), num_cell_types=2))
    model.vocabulary, model.card = plain.vocabulary, plain.card
    model.labels = CellLabels(("CL:0000236", "CL:0000084"), ("B cell", "=T cell"))
    save_pretrained(model, folder)
    return folder


@pytest.fixture
def open_model(app: AppTest, naming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Open the page on a copy of `naming` with the given files beside its weights."""

    def run(**files: str) -> AppTest:
        folder = shutil.copytree(naming, tmp_path / "checkpoint")
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
        monkeypatch.setenv("SCDIVA_CHECKPOINT", str(folder))
        app.query_params["data"] = "bone_marrow"
        return app.run().switch_page("pages/model.py").run()

    return run


@pytest.fixture
def measured(naming: Path) -> dict:
    """An evaluation of `naming`."""
    return small_evaluation(file_sha256(naming / "model.safetensors"))


def test_the_card_states_what_was_counted(app: AppTest, engine: Engine, checkpoint: Path) -> None:
    app.run().switch_page("pages/model.py").run()
    shown = {metric.label: metric.value for metric in app.metric}
    total = sum(parameter.numel() for parameter in engine.model.parameters())
    assert shown["Parameters"] == f"{total:,}"
    assert shown["Device"] == "cpu"
    assert shown["Number type"] == "float32"
    assert shown["Genes"] == "16,634"
    weights = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert weights in [code.value for code in app.code]
    assert "One layer, untrained" in texts(app)


def test_the_overlap_is_that_of_the_open_data_set(app: AppTest) -> None:
    app.query_params["data"] = "bone_marrow"
    app.run().switch_page("pages/model.py").run()
    text = app.get("progress")[0].proto.text
    assert "of 16,259" in text
    assert "Genes of Bone marrow that this model knows" in texts(app)


def test_a_card_is_shown_without_images_formulas_and_a_second_title(open_model: Open) -> None:
    page = open_model(README_md=README)
    assert not page.exception
    assert [title.value for title in page.title] == ["Model"]
    (card,) = [block for block in page.markdown if "A card" in block.value]
    assert card.value.startswith("### A card\n\nA map of ")
    assert r"\$5 and \$6, \:red[loud]" in card.value
    (table,) = [table.value for table in page.table]
    assert (list(table.columns), table.to_numpy().tolist()) == (["set", "share"], [["blood", "**0.9**"]])
    assert not card.proto.allow_html
    assert "example.org" not in texts(page)


def test_without_a_card_and_an_evaluation_the_page_says_so(open_model: Open) -> None:
    page = open_model()
    assert not page.exception
    assert "brings no model card" in texts(page)
    assert "have not been evaluated" in texts(page)
    (command,) = [code.value for code in page.code if "evaluate embedding" in code.value]
    assert command.startswith("python -m scdiva_core evaluate embedding --data SETS")
    assert command.endswith("checkpoint")
    assert not page.table


def test_the_evaluation_is_a_table_with_the_best_in_bold(open_model: Open, measured: dict) -> None:
    page = open_model(evaluation_json=json.dumps(measured))
    assert not page.exception
    (table,) = [table.value.replace("\N{NO-BREAK SPACE}", " ", regex=True) for table in page.table]
    assert list(table.columns)[:2] == ["ScDiVa", "PCA on the set"]
    assert table["ScDiVa"].tolist() == ["0.900 ± 0.010", "**0.960 ± 0.010**", "**0.930 ± 0.010**"]
    assert table["PCA on the set"].tolist() == ["**0.920 ± 0.010**", "0.940 ± 0.010", "**0.930 ± 0.010**"]
    assert table.index[0] == r"Blood, \<b\>3k\</b\>"
    assert len(page.get("plotly_chart")) == 1
    assert {"PNG", "SVG", "HTML"} <= {button.label for button in page.get("download_button")}
    assert "Share of cells whose 15 nearest neighbours" in texts(page)
    words = next(block.value for block in page.markdown if block.value.startswith("**In words:**"))
    assert r"above on 1 \(Lung\), level on none, below on 1 \(Blood" in words


def test_another_group_and_measure_are_chosen(open_model: Open, measured: dict) -> None:
    page = open_model(evaluation_json=json.dumps(measured))
    group, measure = page.get("button_group")
    assert measure.options == ["kNN accuracy", "Linear probe, accuracy"]
    group.set_value("annotation").run()
    (table,) = [table.value for table in page.table]
    assert list(table.columns) == ["ScDiVa", "variable genes + logistic regression", "commonest type"]
    assert page.get("button_group")[1].value == "macro_f1", "the measure that there is a verdict on"
    page.get("button_group")[1].set_value("calibration_error").run()
    (table,) = [table.value for table in page.table]
    assert table.to_dict() == {"ScDiVa": {r"Blood, \<b\>3k\</b\>": "0.080"}}
    assert "less is better" in texts(page)


def test_numbers_of_other_weights_are_not_shown(open_model: Open) -> None:
    page = open_model(evaluation_json=json.dumps(small_evaluation("deadbeef" * 8)))
    assert "belongs to other weights (SHA-256 deadbeef…)" in page.info[0].value
    assert not page.table
    assert not page.get("plotly_chart")


@pytest.mark.parametrize("content", ["{", "[]", '{"checkpoint": "<b>"}'])
def test_a_damaged_evaluation_is_a_message_and_the_page_goes_on(open_model: Open, content: str) -> None:
    page = open_model(evaluation_json=content, README_md=README)
    assert not page.exception
    assert r"evaluation\.json" in page.error[0].value
    assert "Evaluate the checkpoint again" in page.error[0].value
    assert "A card" in texts(page)


def test_cell_types_that_it_can_name(open_model: Open) -> None:
    page = open_model()
    assert "Cell types that it can name (2)" in [expander.label for expander in page.expander]
    table = next(frame.value for frame in page.dataframe if "Cell Ontology id" in frame.value)
    assert table.to_numpy().tolist() == [["B cell", "CL:0000236"], ["=T cell", "CL:0000084"]]


def test_a_checkpoint_that_names_nothing_lists_nothing(app: AppTest) -> None:
    app.query_params["data"] = "bone_marrow"
    app.run().switch_page("pages/model.py").run()
    assert not [expander for expander in app.expander if "can name" in expander.label]
