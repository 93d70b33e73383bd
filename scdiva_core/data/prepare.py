"""From ``.h5ad`` files to token shards: one vocabulary, one set of statistics, one shard per few thousand cells."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from scdiva_core.data.corpus import CellRows
from scdiva_core.data.h5ad import H5adDataset, file_sha256, open_h5ad
from scdiva_core.data.ontology import cell_ontology
from scdiva_core.data.shards import Shard, write_shard
from scdiva_core.data.studies import Studies, Study
from scdiva_core.data.tokenizer import EntropyAccumulator
from scdiva_core.data.vocabulary import GeneVocabulary, human_genes
from scdiva_core.errors import DataError

SPECIAL_TOKENS = ("<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>")
"""Reserved tokens of a vocabulary made here, at ids 0 to 4."""

HELD_OUT_SHARE = 0.1
"""Share of a data set's cells that its held-out donors make up at least, where nobody named them."""

MIN_CLASS_CELLS = 5
"""Training cells that a type must have to become an output of the annotation head."""

Report = Callable[[str], None]


def prepare(
    files: Sequence[Path],
    folder: Path,
    *,
    studies: Studies | None = None,
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
    studies
        What is known of the data sets: labels as Cell Ontology terms, technical batches, donors to hold out. None
        leaves labels out and takes donors from ``donor_columns``.
    vocabulary
        Tokens to use; when None, every approved symbol that at least ``min_cells`` cells detect.
    min_cells
        See ``vocabulary``.
    donor_columns
        Without studies: the first of these columns of ``obs`` that a file has names the donors. Of three donors or
        more the last in sorted order, with all their cells, are held out for validation, until they make up a tenth.
    shard_cells
        Cells of a shard at most.
    report
        Called with a line of progress.

    Raises
    ------
    DataError
        A file is not there, holds no raw counts or cannot be read, is unknown to ``studies``, carries a label that
        they do not list or lacks a donor that they hold out; two files share a name; or no donor, or every one, would
        be held out.
    """
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        msg = f"Two of the {len(files)} files share a name."
        raise DataError(msg, "Rename one: a data set is known by its file's name.")
    missing = [file for file in files if not file.is_file()]
    if missing:
        msg = f"{len(missing)} of the {len(files)} files are not there, the first is {missing[0]}."
        raise DataError(msg, "Check the path.")
    if studies is not None:
        for file in files:
            if reason := studies.study(file.stem).excluded:
                report(f"{file.name}: left out, {reason}")
        files = [file for file in files if not studies.study(file.stem).excluded]
    folder.mkdir(parents=True, exist_ok=True)
    # From here on vocabulary and shards may belong to different runs.
    _write_json(folder / "corpus.json", {"finished": False})
    if vocabulary is None:
        vocabulary = _corpus_vocabulary(files, min_cells, report)
    vocabulary.to_file(folder / "vocab.json")
    write = _Writer(folder, vocabulary, studies, tuple(donor_columns), shard_cells, report)
    datasets = [write.dataset(file) for file in files]
    shards = [name for dataset in datasets for name in dataset["shards"]]
    if not any(dataset["validation_cells"] for dataset in datasets):
        _refuse_without_donors(len(files), studies, donor_columns)
    if all(dataset["validation_cells"] == dataset["n_cells"] for dataset in datasets):
        _refuse_without_training(len(files), studies)
    report("Computing entropies")
    statistics, label_cells = _statistics(folder, shards, len(vocabulary), len(write.label_ids))
    save_file(statistics, folder / "statistics.safetensors")
    labels, classes = _classes(write.label_ids, label_cells, studies)
    manifest = {
        "finished": True,
        "vocabulary_sha256": vocabulary.sha256,
        "shards": shards,
        "labels": labels,
        "classes": classes,
        "class_names": [cell_ontology().name(term) for term in classes],
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


def _refuse_without_donors(n_files: int, studies: Studies | None, donor_columns: Sequence[str]) -> NoReturn:
    if studies is not None:
        msg = f"The studies name no donor of the {n_files} files to hold out."
        raise DataError(msg, "Name some in 'held_out' of datasets.toml.")
    msg = f"None of the {n_files} files has a donor column with three donors, so nothing can be held out."
    raise DataError(msg, f"Looked for {', '.join(donor_columns)}. Name the column with --donor-column.")


def _refuse_without_training(n_files: int, studies: Studies | None) -> NoReturn:
    msg = f"Every cell of the {n_files} files is held out, so none is left to train on."
    if studies is not None:
        raise DataError(msg, "Name fewer donors in 'held_out' of datasets.toml, or add a file.")
    raise DataError(msg, "Name another column with --donor-column, or add a file.")


class _Writer:
    """Writes the shards of one data set after another."""

    def __init__(
        self,
        folder: Path,
        vocabulary: GeneVocabulary,
        studies: Studies | None,
        donor_columns: tuple[str, ...],
        shard_cells: int,
        report: Report,
    ) -> None:
        self.folder, self.vocabulary, self.studies = folder, vocabulary, studies
        self.donor_columns, self.shard_cells, self.report = donor_columns, shard_cells, report
        self.label_ids = () if studies is None else studies.ontology_ids

    def dataset(self, file: Path) -> dict[str, Any]:
        """Write one file's shards, unless the same ones are there, and return its entry of the manifest."""
        study = None if self.studies is None else self.studies.study(file.stem)
        entry_path = self.folder / f"{file.stem}.dataset.json"
        inputs = {
            "source_sha256": file_sha256(file),
            "vocabulary_sha256": self.vocabulary.sha256,
            "donor_columns": list(self.donor_columns),
            "study": None if study is None else json.loads(json.dumps(asdict(study))),
            "labels": [] if self.studies is None else self.studies.table(file.stem),
            "label_ids": list(self.label_ids),
            "shard_cells": self.shard_cells,
        }
        if entry_path.is_file():
            entry = json.loads(entry_path.read_text(encoding="utf-8"))
            if entry["inputs"] == inputs and all((self.folder / name).is_file() for name in entry["shards"]):
                self.report(f"{file.name}: kept {entry['n_cells']:,} cells")
                return entry
        with open_h5ad(file, self.vocabulary, values="counts") as dataset:
            cells, batches = self._annotations(dataset, file.stem, study)
            entry = {
                "name": file.stem,
                "n_cells": dataset.n_obs,
                "validation_cells": int(cells["validation"].sum()),
                "labelled_cells": int((cells["label"] >= 0).sum()),
                "genes_known": dataset.genes.n_known,
                "batches": batches,
                "shards": self._write_shards(dataset, file.stem, cells),
                "inputs": inputs,
            }
        _write_json(entry_path, entry)
        self.report(
            f"{file.name}: {entry['n_cells']:,} cells, {entry['labelled_cells']:,} labelled, "
            f"{entry['validation_cells']:,} held out"
        )
        return entry

    def _annotations(
        self, dataset: H5adDataset, name: str, study: Study | None
    ) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """What is known of each cell, and the names of the technical batches."""
        cells = {
            "total": dataset.count_totals(),
            "validation": _held_out(dataset, study, self.donor_columns).astype(np.uint8),
            "label": np.full(dataset.n_obs, -1, np.int16),
            "batch": np.zeros(dataset.n_obs, np.int16),
        }
        batches = [name]
        if study is not None and study.batch_column:
            found, index = np.unique(_column(dataset, study.batch_column), return_inverse=True)
            cells["batch"], batches = index.astype(np.int16), [f"{name}: {batch}" for batch in found]
        if study is not None and study.label_column:
            found, index = np.unique(_column(dataset, study.label_column), return_inverse=True)
            ids = [self.studies.label(name, label)[0] for label in found.tolist()]
            places = [self.label_ids.index(i) if i else -1 for i in ids]
            cells["label"] = np.array(places, np.int16)[index]
        return cells, batches

    def _write_shards(self, dataset: H5adDataset, stem: str, cells: dict[str, NDArray[Any]]) -> list[str]:
        names = []
        for start, counts in dataset.count_chunks(self.shard_cells):
            name = f"{stem}-{start // self.shard_cells:04d}.safetensors"
            of_shard = {key: values[start : start + counts.shape[0]] for key, values in cells.items()}
            entries = {"gene_ids": dataset.gene_ids[counts.indices], "counts": counts.data.astype(np.uint32)}
            write_shard(self.folder / name, counts.indptr, entries | of_shard)
            names.append(name)
        return names


def _column(dataset: H5adDataset, name: str) -> NDArray[np.str_]:
    if name not in dataset.obs:
        msg = f"{dataset.path.name} has no column {name!r} in obs."
        raise DataError(msg, "Correct the table of studies, or use the file that it was made for.")
    return dataset.obs[name].astype(str).to_numpy().astype(str)


def _held_out(dataset: H5adDataset, study: Study | None, donor_columns: Sequence[str]) -> NDArray[np.bool_]:
    """Cells of the donors that the study names; without one, of the last donors until they make up a tenth."""
    if study is not None:
        if not study.held_out:
            return np.zeros(dataset.n_obs, bool)
        donors = _column(dataset, study.donor_column)
        if unknown := [name for name in study.held_out if name not in donors]:
            msg = f"{dataset.path.name} has no donor {unknown[0]!r} in {study.donor_column!r} to hold out."
            known = ", ".join(np.unique(donors)[:20])
            raise DataError(msg, f"Correct 'held_out' of datasets.toml; the file's donors are {known}.")
        return np.isin(donors, study.held_out)
    column = next((name for name in donor_columns if name in dataset.obs), None)
    if column is None:
        return np.zeros(dataset.n_obs, bool)
    donors, index, sizes = np.unique(_column(dataset, column), return_inverse=True, return_counts=True)
    if len(donors) < 3:
        return np.zeros(dataset.n_obs, bool)
    from_the_end = np.cumsum(sizes[::-1])
    needed = int(np.searchsorted(from_the_end, HELD_OUT_SHARE * dataset.n_obs)) + 1
    return index >= len(donors) - needed


def _statistics(
    folder: Path, shards: Sequence[str], vocab_size: int, n_labels: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """Entropy, mean and deviation of each gene's log1p value over the training cells, and cells of each label."""
    entropy = EntropyAccumulator(vocab_size)
    total, squares = np.zeros(vocab_size), np.zeros(vocab_size)
    label_cells = np.zeros(n_labels, np.int64)
    for name in shards:
        shard = Shard(folder / name)
        trained = np.flatnonzero(shard.cells["validation"] == 0)
        labels = shard.cells["label"][trained]
        label_cells += np.bincount(labels[labels >= 0], minlength=n_labels)
        if not len(trained):
            continue
        lengths, ids, counts = shard.take(trained)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        values = CellRows(indptr, ids.astype(np.int32), counts, shard.cells["total"][trained]).log1p()
        entropy.add(len(trained), ids, values)
        total += np.bincount(ids, values, minlength=vocab_size)
        squares += np.bincount(ids, values.astype(np.float64) ** 2, minlength=vocab_size)
    mean = total / entropy.n_cells
    std = np.sqrt(np.maximum(squares / entropy.n_cells - mean**2, 0))
    statistics = {
        "entropy": entropy.entropy(),
        "gene_mean": mean.astype(np.float32),
        "gene_std": std.astype(np.float32),
    }
    return statistics, label_cells


def _classes(
    label_ids: Sequence[str], label_cells: NDArray[np.int64], studies: Studies | None
) -> tuple[dict[str, list[int]], list[str]]:
    """Classes that each label may be, by number, and the classes: final labels with enough training cells."""
    if studies is None:
        return {}, []
    ontology = cell_ontology()
    classes = [
        label
        for label, cells in zip(label_ids, label_cells, strict=True)
        if label in studies.classes and cells >= MIN_CLASS_CELLS
    ]
    members = {}
    for label in label_ids:
        below = {label} if label in studies.classes else ontology.descendants(label)
        members[label] = [number for number, term in enumerate(classes) if term in below]
    return members, classes


def _write_json(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
