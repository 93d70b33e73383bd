"""What a user is told of an ``.h5ad`` file before anything is loaded."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scdiva_core.data.frames import ObsColumn
from scdiva_core.data.hdf5 import file_bytes, keys, open_hdf5, subgroup
from scdiva_core.data.inspection import Inspection, inspect_file
from scdiva_core.data.matrix import MatrixInfo
from scdiva_core.data.values import TARGET_SUM, undone_total
from scdiva_core.data.vocabulary import GeneVocabulary

CHUNK_ROWS = 2048
MIN_SHARE = 0.2
_LOW_SHARE = 0.5
_FEW_GENES = 5_000
_WHAT_KINDS_MEAN = {
    "normalised": "the values look normalised but not logarithmic; they are scaled to 10,000 and logged",
    "scaled": "it holds negative values (scaled or centred) and cannot be used",
    "unknown": "its values could not be recognised",
}


@dataclass(frozen=True)
class Preflight:
    """Facts on a file from its headers, its gene names and a small sample of values.

    Parameters
    ----------
    path, size_bytes
        The file.
    n_obs, n_vars
        Cells, and genes of the recommended (or chosen) matrix.
    matrices, kinds
        All matrices that can be read, and what the values of each look like.
    recommended
        Name of the matrix that will be read.
    value_kind, value_reason
        ``"counts"``, ``"log1p"``, ``"normalised"``, ``"scaled"`` or ``"unknown"``, and why.
    gene_column, gene_kind
        Column of ``var`` with the names (None for its index); ``"symbols"``, ``"ensembl"``, ``"mixed"`` or
        ``"unknown"``.
    genes_known, share_known
        Genes that the vocabulary knows, and their share of `n_vars`; None without a vocabulary.
    obs_columns, obsm
        Columns of ``obs``, and names of embeddings.
    warnings
        Sentences to show.
    detected_genes
        Mean number of genes detected in a cell (estimate when dense).
    estimated_memory_bytes
        Memory that reading takes at its peak, beyond the libraries.
    """

    path: str
    size_bytes: int
    n_obs: int
    n_vars: int
    matrices: tuple[MatrixInfo, ...]
    kinds: dict[str, str]
    recommended: str
    value_kind: str
    value_reason: str
    gene_column: str | None
    gene_kind: str
    genes_known: int | None
    share_known: float | None
    obs_columns: tuple[ObsColumn, ...]
    obsm: tuple[str, ...]
    warnings: tuple[str, ...]
    detected_genes: float
    estimated_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `json.dumps` takes."""
        return asdict(self)


def preflight(
    path: str | Path,
    vocabulary: GeneVocabulary | None = None,
    *,
    matrix: str | None = None,
    gene_column: str | None = None,
) -> Preflight:
    """Look at a file without loading it: below two seconds for gigabytes.

    Parameters
    ----------
    path
        An ``.h5ad`` file.
    vocabulary
        Genes of a checkpoint, to say how many of the file's genes it knows.
    matrix
        Matrix to describe; the recommended one when None.
    gene_column
        Column of ``var`` with the gene names, ``"index"`` for its index; found by comparing when None.

    Raises
    ------
    DataError
        The file is not HDF5, damaged, incomplete, or contradicts itself.
    """
    with closing(open_hdf5(path)) as file:
        return report(file, inspect_file(file, vocabulary, matrix, gene_column), vocabulary is not None)


def report(file: h5py.File, found: Inspection, matched: bool) -> Preflight:
    """Write down what an inspection found.

    Parameters
    ----------
    file
        The open file.
    found
        Its inspection.
    matched
        Whether the genes were matched to a checkpoint's vocabulary.
    """
    chosen, match = found.chosen, found.genes.match
    obsm = subgroup(file, "obsm")
    return Preflight(
        path=file.filename,
        size_bytes=file_bytes(file),
        n_obs=chosen.matrix.shape[0],
        n_vars=chosen.matrix.shape[1],
        matrices=tuple(candidate.matrix.info for candidate in found.candidates),
        kinds={candidate.matrix.info.name: candidate.kind for candidate in found.candidates},
        recommended=chosen.matrix.info.name,
        value_kind=chosen.kind,
        value_reason=chosen.reason,
        gene_column=found.genes.column,
        gene_kind=match.kind,
        genes_known=match.n_known if matched else None,
        share_known=match.fraction if matched else None,
        obs_columns=found.obs.columns,
        obsm=tuple(keys(obsm)) if obsm is not None else (),
        warnings=tuple(_matrix_warnings(found) + _gene_warnings(found, matched)),
        detected_genes=chosen.sample.detected,
        estimated_memory_bytes=chosen.matrix.peak_bytes(CHUNK_ROWS, chosen.sample.detected),
    )


def _matrix_warnings(found: Inspection) -> list[str]:
    chosen = found.chosen
    info = chosen.matrix.info
    warnings = [f"{name} is left out: {reason}" for name, reason in found.problems.items()]
    left_out = found.obs.left_out.items()
    warnings += [f"Column {name!r} of obs is left out: {reason}" for name, reason in left_out]
    if chosen.kind in _WHAT_KINDS_MEAN:
        warnings.append(f"{info.name}: {_WHAT_KINDS_MEAN[chosen.kind]} ({chosen.reason}).")
    total = undone_total(chosen.sample) if chosen.kind == "log1p" else None
    if total is not None and abs(total / TARGET_SUM - 1) > 0.1:
        warnings.append(
            f"{info.name} holds logarithms of values that sum to about {total:,.0f} a cell; "
            f"the model expects {TARGET_SUM:,.0f}. They are taken as they are."
        )
    if chosen.kind == "counts" and info.shape[1] < _FEW_GENES:
        warnings.append(
            f"{info.name} holds counts of {info.shape[1]:,} genes only; each cell is normalised by its total "
            "over these, which differs from its total over all genes."
        )
    return warnings


def _gene_warnings(found: Inspection, matched: bool) -> list[str]:
    match, warnings = found.genes.match, []
    if matched and match.fraction < _LOW_SHARE:
        consequence = "the file will be refused" if match.fraction < MIN_SHARE else "results will be weaker"
        warnings.append(
            f"The model knows {match.n_known:,} of {match.n_total:,} genes ({match.fraction:.1%}): {consequence}."
        )
    shared = match.n_known - len(np.unique(match.ids[match.ids >= 0]))
    if matched and shared:
        warnings.append(f"{shared:,} genes share their token with another one and are summed with it.")
    return warnings
