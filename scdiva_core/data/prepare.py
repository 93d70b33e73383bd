"""From ``.h5ad`` files to token shards: one vocabulary, one set of statistics, one shard per few thousand cells."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from scdiva_core.data.corpus import CellRows
from scdiva_core.data.h5ad import H5adDataset, file_sha256, open_h5ad
from scdiva_core.data.tokenizer import EntropyAccumulator
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import DataError

SPECIAL_TOKENS = ("<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>")
"""Reserved tokens of a vocabulary made here, at ids 0 to 4."""

HELD_OUT_SHARE = 0.1
"""Share of a data set's cells that its held-out donors make up at least."""

Report = Callable[[str], None]


def prepare(
    files: Sequence[Path],
    folder: Path,
    *,
    vocabulary: GeneVocabulary | None = None,
    min_cells: int = 30,
    donor_columns: Sequence[str] = ("donor", "donor_id", "batch"),
    shard_cells: int = 8192,
    report: Report = lambda message: None,
) -> None:
    """Write a corpus folder; data sets that are already there and unchanged are kept.

    Parameters
    ----------
    files
        Files with raw counts.
    folder
        Made when absent.
    vocabulary
        Tokens to use; when None, every approved symbol that at least ``min_cells`` cells detect.
    min_cells
        See ``vocabulary``.
    donor_columns
        The first of these columns of ``obs`` that a file has names the donors. Of three donors or more the
        last in sorted order, with all their cells, are held out for validation, until they make up a tenth.
    shard_cells
        Cells of a shard at most.
    report
        Called with a line of progress.

    Raises
    ------
    DataError
        A file is not there, holds no raw counts or cannot be read, two files share a name, or no donor can be held out.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        msg = f"Two of the {len(files)} files share a name."
        raise DataError(msg, "Rename one: a data set is known by its file's name.")
    missing = [file for file in files if not file.is_file()]
    if missing:
        msg = f"{len(missing)} of the {len(files)} files are not there, the first is {missing[0]}."
        raise DataError(msg, "Check the path.")
    folder.mkdir(parents=True, exist_ok=True)
    # From here on vocabulary and shards may belong to different runs.
    _write_json(folder / "corpus.json", {"finished": False})
    if vocabulary is None:
        vocabulary = _corpus_vocabulary(files, min_cells, report)
    vocabulary.to_file(folder / "vocab.json")
    datasets = [_write_dataset(file, folder, vocabulary, donor_columns, shard_cells, report) for file in files]
    shards = [name for dataset in datasets for name in dataset["shards"]]
    if not any(dataset["validation_cells"] for dataset in datasets):
        msg = f"None of the {len(files)} files has a donor column with three donors, so nothing can be held out."
        raise DataError(msg, f"Looked for {', '.join(donor_columns)}. Name the column with --donor-column.")
    report("Computing entropies")
    save_file(_statistics(folder, shards, len(vocabulary)), folder / "statistics.safetensors")
    manifest = {
        "finished": True,
        "vocabulary_sha256": vocabulary.sha256,
        "shards": shards,
        "datasets": datasets,
        "n_cells": sum(dataset["n_cells"] for dataset in datasets),
    }
    _write_json(folder / "corpus.json", manifest)


def _corpus_vocabulary(files: Sequence[Path], min_cells: int, report: Report) -> GeneVocabulary:
    """Approved symbols that enough cells of all files together detect, in alphabetical order."""
    genes = human_genes()
    cells = np.zeros(len(genes), np.int64)
    for file in files:
        report(f"Counting genes of {file.name}")
        with open_h5ad(file, genes, values="counts") as dataset:
            for _, counts in dataset.count_chunks():
                cells[dataset.gene_ids] += np.bincount(counts.indices, minlength=counts.shape[1])
    kept = [genes.tokens[i] for i in np.flatnonzero(cells >= min_cells)]
    return GeneVocabulary([*SPECIAL_TOKENS, *sorted(kept)])


def _write_dataset(
    file: Path,
    folder: Path,
    vocabulary: GeneVocabulary,
    donor_columns: Sequence[str],
    shard_cells: int,
    report: Report,
) -> dict[str, Any]:
    """Write one file's shards, unless the same ones are there, and return its entry of the manifest."""
    entry_path = folder / f"{file.stem}.dataset.json"
    inputs = {
        "source_sha256": file_sha256(file),
        "vocabulary_sha256": vocabulary.sha256,
        "donor_columns": list(donor_columns),
        "shard_cells": shard_cells,
    }
    if entry_path.is_file():
        entry = json.loads(entry_path.read_text(encoding="utf-8"))
        if entry["inputs"] == inputs and all((folder / name).is_file() for name in entry["shards"]):
            report(f"{file.name}: kept {entry['n_cells']:,} cells")
            return entry
    shards = []
    with open_h5ad(file, vocabulary, values="counts") as dataset:
        held_out = _held_out(dataset, donor_columns)
        for start, counts in dataset.count_chunks(shard_cells):
            name = f"{file.stem}-{start // shard_cells:04d}.safetensors"
            gene_ids = dataset.gene_ids[counts.indices]
            tensors = {
                "indptr": counts.indptr.astype(np.int64),
                "gene_ids": gene_ids.astype(np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32),
                "counts": counts.data.astype(np.uint16 if counts.max() < 1 << 16 else np.uint32),
                "validation": held_out[start : start + counts.shape[0]].astype(np.uint8),
            }
            save_file(tensors, folder / f"{name}.partial")
            os.replace(folder / f"{name}.partial", folder / name)
            shards.append(name)
        entry = {
            "name": file.stem,
            "n_cells": dataset.n_obs,
            "validation_cells": int(held_out.sum()),
            "genes_known": dataset.genes.n_known,
            "shards": shards,
            "inputs": inputs,
        }
    _write_json(entry_path, entry)
    report(f"{file.name}: {entry['n_cells']:,} cells, {entry['validation_cells']:,} held out")
    return entry


def _held_out(dataset: H5adDataset, donor_columns: Sequence[str]) -> NDArray[np.bool_]:
    """Cells of the last donors, as many as make up a tenth, where a data set has at least three donors."""
    column = next((name for name in donor_columns if name in dataset.obs), None)
    if column is None:
        return np.zeros(dataset.n_obs, bool)
    donors, index, sizes = np.unique(
        dataset.obs[column].astype(str).to_numpy(), return_inverse=True, return_counts=True
    )
    if len(donors) < 3:
        return np.zeros(dataset.n_obs, bool)
    from_the_end = np.cumsum(sizes[::-1])
    needed = int(np.searchsorted(from_the_end, HELD_OUT_SHARE * dataset.n_obs)) + 1
    return index >= len(donors) - needed


def _statistics(folder: Path, shards: Sequence[str], vocab_size: int) -> dict[str, NDArray[np.float32]]:
    """Entropy, mean and standard deviation of each gene's log1p value over the training cells."""
    entropy = EntropyAccumulator(vocab_size)
    total, squares = np.zeros(vocab_size), np.zeros(vocab_size)
    for name in shards:
        shard = load_file(folder / name)
        cells = CellRows(shard["indptr"], shard["gene_ids"].astype(np.int32), shard["counts"])
        trained = ~shard["validation"].astype(bool)
        kept = trained[cells.rows]
        ids, values = cells.gene_ids[kept], cells.log1p()[kept]
        entropy.add(int(trained.sum()), ids, values)
        total += np.bincount(ids, values, minlength=vocab_size)
        squares += np.bincount(ids, values.astype(np.float64) ** 2, minlength=vocab_size)
    mean = total / entropy.n_cells
    std = np.sqrt(np.maximum(squares / entropy.n_cells - mean**2, 0))
    return {
        "entropy": entropy.entropy(),
        "gene_mean": mean.astype(np.float32),
        "gene_std": std.astype(np.float32),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
