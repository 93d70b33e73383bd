"""The command ``annotate``: what it writes, what it prints where, what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scdiva_core.cli import main
from scdiva_core.cli_annotate import AUTHOR, CellType, cell_types
from scdiva_core.engine import Engine
from scdiva_core.engine_annotation import SOURCES, annotate
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.reference import REFERENCE_FILE
from scdiva_core.tasks.annotation import LabelCalls
from scdiva_core.tasks.annotation_export import read_annotation
from tests.unit.test_engine_annotation import nearer, write_naming_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of these tests stay with the tests."""
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def checkpoint(tiny_config: Callable[..., ScDiVaConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with every source; some cells of ``kang.h5ad`` lie beyond its reference, others do not."""
    folder = write_naming_checkpoint(tmp_path_factory.mktemp("naming"), tiny_config)
    nearer(folder, 0.3)
    return folder


@pytest.fixture
def cells(checkpoint: Path, tmp_path: Path) -> Path:
    """160 cells of four people."""
    return Path(shutil.copy(checkpoint.parent / "kang.h5ad", tmp_path / "cells.h5ad"))


@pytest.fixture
def model(checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(checkpoint), "--device", "cpu"]


def table(printed: str) -> dict[str, list[str]]:
    """Numbers of each row by the name of its type, and the header under its first word."""
    lines = [line for line in printed.splitlines() if "  " in line]
    rows = [[cell for cell in line.split("  ") if cell] for line in lines]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_annotate_from_end_to_end(
    cells: Path, checkpoint: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "new" / "out.h5ad"
    before = sha256(cells.read_bytes()).hexdigest()
    options = ["--source", "scdiva,knn, markers", "--donor", "person"]
    assert main(["annotate", str(cells), "-o", str(out), *model, *options]) == 0
    printed = capsys.readouterr()
    assert sha256(cells.read_bytes()).hexdigest() == before

    engine = Engine(checkpoint, "cpu")
    with engine.open(cells) as dataset:
        expected = annotate(engine, dataset, ["scdiva", "knn", "markers"]).labels("consensus")
    found = anndata.read_h5ad(out)
    names = np.array([*expected.names, "unknown"], object)[expected.best]
    assert found.obs["scdiva_label"].tolist() == names.tolist()
    known = expected.best >= 0
    assert 0 < known.sum() < 160
    terms = np.array([*expected.ids, ""], object)[expected.best]
    assert found.obs["scdiva_label_ontology_id"][known].tolist() == terms[known].tolist()
    assert found.obs["scdiva_label_ontology_id"][~known].isna().all()
    np.testing.assert_array_equal(found.obs["scdiva_label_confidence"][known], expected.probability[known])
    assert found.obs["scdiva_label_confidence"][~known].isna().all()
    assert set(found.obs["scdiva_label_source"]) == {"consensus"}
    assert set(anndata.read_h5ad(cells).obs) <= set(found.obs)

    *_, counted, meaning, path = printed.out.splitlines()
    assert path == str(out)
    assert counted.startswith(f"160 cells, {len(np.unique(names[known]))} types, {(~known).sum()} cells unknown; cons")
    assert counted.endswith("of 3: ScDiVa (trained head and profiles), Nearest reference cells, Marker genes")
    assert meaning.startswith("confidence: mean probability")
    rows = table(printed.out)
    assert rows.pop("cell type") == ["ontology id", "cells", "share", "confidence", "donors"]
    assert {name: int(row[-4 if name != "unknown" else 0]) for name, row in rows.items()} == dict(
        zip(*np.unique(names.astype(str), return_counts=True), strict=True)
    )
    people = found.obs["person"].groupby(found.obs["scdiva_label"].astype(str)).nunique()
    assert {name: int(row[-1]) for name, row in rows.items()} == people.to_dict()
    assert "(step 1 of 4)" in printed.err


def test_the_new_file_holds_a_review_that_can_go_on(
    cells: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.h5ad"
    assert main(["annotate", str(cells), "-o", str(out), *model]) == 0
    found = anndata.read_h5ad(out)
    review = read_annotation(out)
    assert review.state.names.tolist() == found.obs["scdiva_label"].tolist()
    assert set(review.state.sources) == {"scdiva"}, "one source, so no consensus"
    (begun,) = review.events
    assert (begun.kind, begun.who, begun.n_obs) == ("begin", AUTHOR, 160)
    assert begun.why == "command line; ScDiVa (trained head and profiles)"
    assert begun.data_sha256 == sha256(cells.read_bytes()).hexdigest()
    schema = json.loads(found.uns["cas"])
    assert (schema["author_name"], schema["title"]) == (AUTHOR, "cells")
    assert sum(len(entry["cell_ids"]) for entry in schema["annotations"]) == 160


def test_a_second_run_computes_nothing(
    cells: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    printed = []
    for name in ("one", "two"):
        assert main(["annotate", str(cells), "-o", str(tmp_path / name), *model, "--source", "scdiva,markers"]) == 0
        printed.append(capsys.readouterr())
    assert "Embedding cells" in printed[0].err
    (told,) = printed[1].err.splitlines()
    assert told.startswith("warning: X holds counts of 500 genes only"), "what the file is, and nothing else"
    assert printed[0].out.splitlines()[:-1] == printed[1].out.splitlines()[:-1]


def test_the_users_columns_have_a_say(
    cells: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.h5ad"
    options = ["--source", "knn", "--column", "cell_type", "condition"]
    assert main(["annotate", str(cells), "-o", str(out), *model, *options]) == 0
    assert "consensus of 3: Nearest reference cells, obs: cell_type, obs: condition" in capsys.readouterr().out
    assert set(anndata.read_h5ad(out).obs["scdiva_label_source"]) == {"consensus"}


def test_every_cell_gets_a_name_when_that_is_asked_for(
    cells: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out.h5ad"
    assert main(["annotate", str(cells), "-o", str(out), *model, "--no-unknown"]) == 0
    assert " types, 0 cells unknown; ScDiVa" in capsys.readouterr().out
    assert "unknown" not in set(anndata.read_h5ad(out).obs["scdiva_label"])


def test_a_checkpoint_without_reference_says_that_nothing_can_be_unknown(
    cells: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bare = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    (bare / REFERENCE_FILE).unlink()
    arguments = ["annotate", str(cells), "-o", str(tmp_path / "out.h5ad"), "--checkpoint", str(bare)]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "warning: this checkpoint has no reference, so that no cell is called unknown" in capsys.readouterr().err
    assert main([*arguments, "--device", "cpu", "--no-unknown"]) == 0
    assert "no reference" not in capsys.readouterr().err


LABELS = LabelCalls(
    "knn",
    ("CL:0000236", "CL:0000084", ""),
    ("B cell", "T cell", "odd"),
    np.array([0, 1, 1, -1, 1, 2], np.int32),
    *np.full((2, 6), -1, np.int32),
    probability=np.array([0.5, 0.25, 0.75, 0.1, 0.5, 1], np.float32),
    margin=np.zeros(6, np.float32),
    entropy=np.zeros(6, np.float32),
)


def test_types_are_counted_with_their_confidence_and_donors() -> None:
    donors = pd.Series(["a", "a", "b", "b", None, None], index=list("uvwxyz"), dtype="category")
    assert cell_types(LABELS, donors) == [
        CellType("T cell", "CL:0000084", 3, 0.5, 2),
        CellType("B cell", "CL:0000236", 1, 0.5, 1),
        CellType("odd", "", 1, 1.0, 0),
        CellType("unknown", "", 1, None, 1),
    ]
    assert {one.donors for one in cell_types(LABELS)} == {None}


def test_types_of_one_donor_are_warned_of(
    cells: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = anndata.read_h5ad(cells)
    nk = (data.obs["cell_type"] == "NK").to_numpy()
    data.obs["person"] = np.where(nk, "p0", np.array(["p1", "p2"])[np.arange(160) % 2])
    data.obs["one"] = "somebody"
    data.obs["mine"] = data.obs["yours"] = np.where(nk, "natural killer cell", "B cell")
    data.write_h5ad(cells)
    arguments = ["annotate", str(cells), "-o", str(tmp_path / "out.h5ad"), *model, "--no-unknown", "--source", "knn"]
    assert main([*arguments, "--donor", "one"]) == 0
    told = capsys.readouterr().err
    assert "warning: the column 'one' names fewer than two donors, so that no type can be seen in a second" in told
    assert "seen in one donor alone" not in told
    # Two columns that say the same outvote the reference.
    assert main([*arguments, "--column", "mine", "yours", "--donor", "person"]) == 0
    _, *told = capsys.readouterr().err.splitlines()  # the first is what the file is
    count = f"natural killer cell ({nk.sum()})"
    assert told == [f"warning: seen in one donor alone, so perhaps that donor's doing: {count}"]


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """Run a command that must end with exit code 1 before it embeds; return the error."""
    assert main(["annotate", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Embedding" not in printed.err
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_what_is_refused_before_any_work(
    cells: Path, model: list[str], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before, out = cells.read_bytes(), ["-o", str(tmp_path / "out.h5ad")]
    error = refused([str(cells), "-o", str(cells), *model], capsys)
    assert "cells.h5ad is the input file, which is never changed" in error
    assert cells.read_bytes() == before
    assert "no column 'patient'. Columns of obs: " in refused([str(cells), *out, *model, "--donor", "patient"], capsys)
    assert "no column 'labels'" in refused([str(cells), *out, *model, "--column", "labels"], capsys)
    assert "'popv' is no source" in refused([str(cells), *out, *model, "--source", "knn,popv"], capsys)
    assert "layers/none" in refused([str(cells), *out, *model, "--matrix", "layers/none"], capsys)
    nameless = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]
    assert "This checkpoint offers no source" in refused([str(cells), *out, *nameless], capsys)
    assert "It offers: none." in refused([str(cells), *out, *nameless, "--source", "knn"], capsys)
    assert "absent.h5ad" in refused([str(tmp_path / "absent.h5ad"), *out, *model], capsys)
    assert not (tmp_path / "out.h5ad").exists()


def test_its_help_names_every_source(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["annotate", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (*SOURCES, "The input is never changed", "their consensus is written", "donors", "hub id"):
        assert words in text


def test_other_commands_need_not_have_its_libraries() -> None:
    """Training runs where there is neither pandas nor anndata."""
    program = "import sys, scdiva_core.cli; print({'pandas', 'anndata', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
