"""A small Perturb-seq file: real blood cells, in which knocked out genes and what hangs on them are changed by hand."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np

_DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo" / "tenx_pbmc3k.h5ad"

N_GENES, N_CONTROL, N_EACH = 40, 60, 20
SINGLES = ("ACTB", "B2M", "CD74", "FTH1", "RPL10", "TMSB4X")
DOUBLES = ("ACTB+CD74", "B2M+TMSB4X")
RAISING = ("ACTB", "B2M", "CD74")
"""Their knockout raises the first genes of the panel; that of the others silences the last ones."""


def write_perturbations(path: Path, genes: list[str]) -> Path:
    """Save 60 control cells, 20 of each perturbation and 3 of one more, over `N_GENES` genes; two batches.

    Parameters
    ----------
    path
        Where to.
    genes
        Names to draw the panel from, which are genes of PBMC 3k.
    """
    names = ["ctrl"] * N_CONTROL + [name for name in (*SINGLES, *DOUBLES) for _ in range(N_EACH)] + ["RPL5"] * 3
    cells = anndata.read_h5ad(_DEMO)[: len(names), genes].copy()
    detected = np.asarray((cells.X > 0).sum(axis=0)).ravel().astype(float)
    detected[cells.var_names.isin(SINGLES)] = np.inf
    detected[cells.var_names.isin(["CD74", "FTH1"])] = -1  # perturbed genes need not be measured
    order = np.argsort(-detected, kind="stable")[:N_GENES]
    cells = cells[:, np.sort(order)].copy()
    counts = cells.X.toarray().astype(np.float32)
    for row, name in enumerate(names):
        for gene in () if name == "ctrl" else name.split("+"):
            counts[row, cells.var_names == gene] = 0
            if gene in RAISING:
                counts[row, :8] = counts[row, :8] * 3 + 2
            else:
                counts[row, -8:] = 0
    cells.X = counts
    cells.obs["perturbation"] = names
    cells.obs["batch"] = ["one", "two"] * (len(names) // 2) + ["one"] * (len(names) % 2)
    cells.write_h5ad(path)
    return path
