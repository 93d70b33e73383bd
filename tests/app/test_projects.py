"""One project in several tabs and processes: nothing that anybody saved is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pages._ui.project import Project
from scdiva_core.data.cellsets import CellSets
from scdiva_core.engine import Engine
from tests.app.conftest import PBMC, ROOT, texts

PROJECT = "00000000000000f1"
WRITER = """
import sys
from pages._ui.project import Project

for number in range(40):
    Project(sys.argv[1]).remember_upload(f"{sys.argv[2]}{number:063d}", sys.argv[2])
"""


def test_many_processes_that_write_one_project_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCDIVA_HOME", str(tmp_path))
    command = [sys.executable, "-c", WRITER, PROJECT]
    writers = [subprocess.Popen([*command, letter], cwd=ROOT, env=dict(os.environ)) for letter in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(Project(PROJECT).uploads()) == 120


def test_a_set_made_in_one_tab_survives_the_undo_of_another(app: AppTest, engine: Engine) -> None:
    with engine.open(PBMC) as cells:
        sha256, n_obs = cells.sha256, cells.n_obs
    recipe = {"kind": "lasso", "representation": "X_scdiva", "x": [0, 1, 1], "y": [0, 0, 1]}

    def elsewhere(name: str) -> None:
        """Add a set as another tab does."""

        def change(kept: dict | None) -> dict:
            sets = CellSets(n_obs) if kept is None else CellSets.from_dict(kept, n_obs)
            sets.add(name, recipe, np.arange(n_obs) < 70)
            return sets.to_dict()

        Project(PROJECT).change_cell_sets(sha256, change)

    def stored() -> list[str]:
        kept = json.loads((engine.store.root.parent / "projects" / PROJECT / "project.json").read_text("utf-8"))
        return [item["name"] for item in kept["cell_sets"][sha256]["sets"]]

    app.query_params.update({"data": "pbmc3k", "project": PROJECT})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCDIVA_HOME", str(engine.store.root.parent))
        elsewhere("first")
        app.run()
        elsewhere("second")
        app.text_input(key="new-name-first").set_value("mine")
        next(button for button in app.button if button.label == "Rename").click().run()
        assert sorted(stored()) == ["mine", "second"]
        assert "**second**" in texts(app)
        app.button(key="undo-sets").click().run()
        assert sorted(stored()) == ["first", "second"]
