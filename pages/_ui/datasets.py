"""The data sets a user can open: bundled demos, uploads, and files below the data root."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pages._ui.project import Project
from pages._ui.state import Choice
from pages._ui.upload import uploaded_path
from scdiva_core.data.paths import safe_path

_DEMO_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "demo"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Demo:
    """One bundled data set, as its card shows it."""

    name: str
    file: str
    title: str
    n_cells: int
    tissue: str
    description: str
    source: str
    licence: str


DEMOS = (
    Demo(
        "pbmc3k",
        "tenx_pbmc3k.h5ad",
        "PBMC 3k",
        2700,
        "Blood",
        "Blood cells of one healthy donor with 8 labelled cell types: the place to start.",
        "10x Genomics, 3k PBMCs from a Healthy Donor",
        "CC BY 4.0",
    ),
    Demo(
        "kang2018",
        "kang2018_pbmc_ifnb_3k.h5ad",
        "Interferon response",
        3000,
        "Blood",
        "Half of the cells were stimulated with interferon beta: does the embedding show state or type?",
        "Kang et al. 2018, GEO GSE96583",
        "public at GEO, cite the study",
    ),
    Demo(
        "bone_marrow",
        "zheng2017_bone_marrow_healthy1.h5ad",
        "Bone marrow",
        1985,
        "Bone marrow",
        "One healthy donor, without labels: what a file looks like before anybody named its cells.",
        "Zheng et al. 2017, 10x Genomics",
        "CC BY 4.0",
    ),
)


def data_root() -> Path:
    """Folder below which files can be opened by path: SCDIVA_DATA_ROOT, by default the user's home."""
    return Path(os.environ.get("SCDIVA_DATA_ROOT") or Path.home())


def locate(choice: Choice) -> Path:
    """File of a data set.

    Raises
    ------
    PathError
        There is no such demo, upload or file, or it lies outside the data root.
    """
    for demo in DEMOS:
        if choice.data == demo.name:
            return _DEMO_FOLDER / demo.file
    if _SHA256.fullmatch(choice.data):
        return uploaded_path(choice.data)
    return safe_path(choice.data, data_root())


def display_name(choice: Choice, project: Project) -> str:
    """What the data set is called on pages, in figures and in file names."""
    for demo in DEMOS:
        if choice.data == demo.name:
            return demo.title
    if _SHA256.fullmatch(choice.data):
        return project.upload_name(choice.data) or f"upload {choice.data[:8]}"
    return Path(choice.data).name
