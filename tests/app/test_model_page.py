"""The Model page: facts of the running checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

from streamlit.testing.v1 import AppTest

from scdiva_core.engine import Engine
from tests.app.conftest import texts


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
