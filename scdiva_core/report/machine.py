"""What a result depends on besides its choices: data, checkpoint, versions and machine, as facts for a report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine import ModelCard
from scdiva_core.report.contents import Facts

PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "anndata", "scanpy", "scikit-learn", "umap-learn", "pynndescent", "igraph"),
    *("leidenalg", "harmonypy", "decoupler", "networkx", "safetensors", "h5py", "plotly", "matplotlib", "streamlit"),
)
"""Packages whose version may change a number or a picture."""

THREADS = (
    "Another number of threads adds numbers in another order: an embedding may change by about a millionth, which may "
    "move the points of a map a little."
)
"""Said beside the number of threads."""


def versions() -> Facts:
    """Versions of Python and of the main packages that are installed."""
    return (("Python", platform.python_version()), *((name, version(name)) for name in PACKAGES))


def machine(device: str) -> Facts:
    """What this process computes on; no name of the machine and no user.

    Parameters
    ----------
    device
        Of the engine, as torch names it.
    """
    named = f"{device}, {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else device
    asked = os.environ.get("OMP_NUM_THREADS")
    threads = f"{torch.get_num_threads()}" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    return (
        ("System", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Device", named),
        ("Processors", str(os.cpu_count())),
        ("Threads", threads),
    )


def data_facts(cells: H5adDataset) -> Facts:
    """Which file was read, and how.

    Parameters
    ----------
    cells
        The open data set.
    """
    found = cells.preflight
    return (
        ("File", cells.path.name),
        ("SHA-256", cells.sha256),
        ("Size", f"{found.size_bytes:,} bytes"),
        ("Cells", f"{cells.n_obs:,}"),
        ("Genes", f"{cells.genes.n_total:,}, of which the model knows {cells.genes.n_known:,}"),
        ("Matrix", found.recommended),
        ("Values taken for", cells.value_kind),
    )


def checkpoint_facts(card: ModelCard) -> Facts:
    """Which weights ran.

    Parameters
    ----------
    card
        Of the engine.
    """
    return (
        ("Name", card.name),
        ("SHA-256", card.sha256 or "none: never trained"),
        ("Parameters", f"{card.parameters_total:,}"),
        ("Genes known", f"{card.vocabulary_size:,}"),
        ("Arithmetic", card.dtype),
        ("Seed of training", "not known" if card.seed is None else str(card.seed)),
    )
