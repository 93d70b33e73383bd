"""The command ``knockout``: what it writes, what it prints where, what it refuses."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scdiva_core.cli import main
from scdiva_core.engine import Engine
from scdiva_core.engine_knockout import KnockoutSettings, ScreenSettings, stored_knockout, stored_screen
from scdiva_core.model.checkpoint import load_pretrained, save_pretrained
from scdiva_core.tasks.knockout_genes import screen_genes
from scdiva_core.tasks.perturbation import read_sample

FEW = ["--n-null", "12"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of these tests stay with the tests."""
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def model(tiny_checkpoint: Path) -> list[str]:
    return ["--checkpoint", str(tiny_checkpoint), "--device", "cpu"]


@pytest.fixture
def engine(tiny_checkpoint: Path) -> Engine:
    return Engine(tiny_checkpoint, "cpu")


@pytest.fixture
def genes(engine: Engine, small_h5ad: Path) -> list[str]:
    """The genes that most cells read."""
    with engine.open(small_h5ad) as dataset:
        sample = read_sample(engine.model, engine.model.tokenizer, dataset, np.arange(160))
    return [sample.symbols[column] for column in np.argsort(-np.diff(sample.tokens.indptr), kind="stable")[:5]]


def refused(arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err.splitlines()[-1]


def test_knockout_from_end_to_end(
    small_h5ad: Path, model: list[str], engine: Engine, genes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, before = tmp_path / "new" / "out", sha256(small_h5ad.read_bytes()).hexdigest()
    options = ["--group", "cell_type", "--donor", "donor", "--genes", f"{genes[0]}, {genes[1]}", *FEW]
    assert main(["knockout", str(small_h5ad), "-o", str(out), *model, *options, "-n", "120", "--seed", "1"]) == 0
    printed = capsys.readouterr()
    assert sha256(small_h5ad.read_bytes()).hexdigest() == before
    asked = KnockoutSettings(
        (genes[0], genes[1]), group_key="cell_type", donor_key="donor", n_null=12, most_cells=120, seed=1
    )
    with engine.open(small_h5ad) as dataset:
        found = stored_knockout(engine, dataset, asked)
        provenance = engine.provenance(dataset)
    assert printed.out == f"{found.summary['caption']}\n{out}\n"
    assert found.summary["caption"].startswith(f"{genes[0]} and {genes[1]} knocked out: of 120 cells (all), ")
    for warning in found.summary["warnings"]:
        assert f"warning: {warning}\n" in printed.err
    for name in ("groups", "directions", "transitions", "cells", "expression", "donors"):
        table = pd.read_csv(out / f"{name}.csv", keep_default_na=name != "cells")
        expected = getattr(found, name)
        assert table.columns.tolist() == expected.columns.tolist(), name
        assert len(table) == len(expected), name
    written = pd.read_csv(out / "groups.csv")
    np.testing.assert_allclose(written["shift"], found.groups["shift"])
    content = json.loads((out / "summary.json").read_text())
    assert (content["n_sampled"], content["n_read"]) == (120, found.n_read)
    assert content["p"] == found.summary["p"]
    assert content["null"] == found.null.tolist()
    assert KnockoutSettings.from_dict(content["settings"]) == asked
    assert content["provenance"] == json.loads(json.dumps(provenance))
    assert not (out / "field.csv").exists(), "no map was drawn"


def test_scaled_genes_of_a_subset(
    small_h5ad: Path, model: list[str], genes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    options = ["--group", "cell_type", "--genes", genes[0], "--mode", "scale", "--factor", "2", *FEW]
    options += ["--subset", "donor=d2", "--no-expression"]
    out.mkdir()
    (out / "expression.csv").write_text("of an earlier run")
    assert main(["knockout", str(small_h5ad), "-o", str(out), *model, *options]) == 0
    assert capsys.readouterr().out.startswith(f"{genes[0]} x 2: of 40 cells (donor=d2), ")
    assert (pd.read_csv(out / "cells.csv")["cell"] % 4 == 1).all()
    assert not (out / "expression.csv").exists()
    assert not (out / "donors.csv").exists()


def test_a_screen_of_named_genes_is_written_and_found_again(
    small_h5ad: Path, model: list[str], engine: Engine, genes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ["knockout", str(small_h5ad), "-o", str(out), *model, "--group", "cell_type", *FEW]
    assert main([*command, "--screen", f"{genes[0]},{genes[1].lower()},NOSUCH"]) == 0
    printed = capsys.readouterr()
    assert "warning: 1 names left out (NOSUCH: no human gene is known by this name" in printed.err
    *_, counted, path = printed.out.splitlines()
    assert path == str(out)
    assert counted.startswith("2 genes: ")
    with engine.open(small_h5ad) as dataset:
        asked = ScreenSettings((genes[0], genes[1]), group_key="cell_type", n_null=12)
        expected = stored_screen(engine, dataset, asked)
    table = pd.read_csv(out / "screen.csv")
    assert table["gene"].tolist() == expected["gene"].tolist()
    np.testing.assert_allclose(table["effect"], expected["effect"])
    assert json.loads((out / "summary.json").read_text())["n_tested"] == 2

    listed = tmp_path / "genes.txt"
    listed.write_text(f"{genes[0]}\n{genes[1]}\n")
    assert main([*command, "--screen", str(listed)]) == 0
    assert "Perturbing" not in capsys.readouterr().err, "fetched, not computed again"


def test_lists_of_genes_by_name(
    small_h5ad: Path, model: list[str], engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ["knockout", str(small_h5ad), "-o", str(out), *model, "--group", "cell_type", "--n-null", "5"]
    assert main([*command, "--screen", "regulators", "--subset", "cell_type=CD4 T"]) == 0
    with engine.open(small_h5ad) as dataset:
        cells = np.flatnonzero(dataset.obs["cell_type"] == "CD4 T")
        expected = screen_genes(dataset, "regulators", cells)
    assert len(expected) > 3
    assert set(pd.read_csv(out / "screen.csv")["gene"]) == set(expected)


def test_random_weights_are_called_so(
    small_h5ad: Path, tiny_checkpoint: Path, genes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    network = load_pretrained(tiny_checkpoint)
    network.card = {**network.card, "random_weights": True}
    save_pretrained(network, tmp_path / "random")
    options = ["--checkpoint", str(tmp_path / "random"), "--device", "cpu", "--group", "cell_type", *FEW]
    options += ["--genes", genes[0], "--no-expression"]
    assert main(["knockout", str(small_h5ad), "-o", str(tmp_path / "out"), *options]) == 0
    assert "warning: these weights are random; the numbers mean nothing" in capsys.readouterr().err


def test_choices_that_are_refused(
    small_h5ad: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["knockout", str(small_h5ad), "-o", str(tmp_path / "out"), *model]
    for options, message in (
        (["--genes", "NOSUCH"], "The gene 'NOSUCH' is not in the model's vocabulary"),
        (["--genes", "A,B,C,D"], "4 genes to perturb"),
        (["--genes", "LYZ", "--mode", "scale"], "scaled by 0"),
        (["--genes", "LYZ", "--factor", "2"], "means nothing to 'knockout'"),
        (["--genes", "LYZ", "--group", "tissue"], "has no column 'tissue'"),
        (["--genes", "LYZ", "--subset", "donor"], "'donor' names no value"),
        (["--genes", "LYZ", "--subset", "donor=d9"], "No cell has 'd9' in the column 'donor'"),
        (["--screen", "NOSUCH,OTHER"], "None of the names in 'NOSUCH,OTHER' is a gene of this file"),
    ):
        error = refused([*command, *options], capsys)
        assert error.startswith("error: ")
        assert message in error


@pytest.mark.parametrize(
    "options", [[], ["--genes", "LYZ", "--screen", "variable"], ["--genes", "LYZ", "--mode", "cut"]]
)
def test_a_wrong_command_line(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["knockout", "cells.h5ad", "-o", "out", *options])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")
