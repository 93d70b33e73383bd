"""What a dask worker does: checks that it has the same file, checkpoint and program, then embeds chunks.

Everything is loaded once a process and kept for the next chunk.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from distributed import get_worker

from scdiva_core.data.h5ad import H5adDataset, Values, open_h5ad
from scdiva_core.data.paths import file_sha256
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.distributed.vectors import VectorFolder
from scdiva_core.errors import CheckpointError, DataError, JobError
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.embedding import embed_cells

_ONE_AT_A_TIME = threading.Lock()  # a second chunk in the same process would only fight for its cores and memory

CHECKOUT = Path(__file__).resolve().parents[2]
"""Folder of the program that runs here."""

_TAKING_PART = ("data", "model", "tasks", "distributed")  # parts of the package


@dataclass(frozen=True)
class Plan:
    """What is embedded, as every process must find it.

    Attributes
    ----------
    checkpoint
        What `load_pretrained` takes; a path is the same on every machine, or relative to the checkout.
    model, program
        `model_identity` and `program_identity` of the process that ordered the work.
    device
        A torch device name, or ``"auto"``: CUDA where it is, else the CPU.
    path
        The ``.h5ad`` file, the same on every machine.
    size, mtime_ns, sha256
        Of the file; its hash is computed where size and time alone do not settle it.
    matrix, gene_column, values
        As `open_h5ad` takes them.
    folder
        Of the unfinished result, see `VectorFolder`; empty before it exists.
    """

    checkpoint: str
    model: str
    program: str
    device: str
    path: str
    size: int
    mtime_ns: int
    sha256: str
    matrix: str
    gene_column: str | None
    values: Values
    folder: str = ""


@dataclass(frozen=True)
class Machine:
    """What a worker computes with.

    Attributes
    ----------
    host
        Name of the machine.
    device
        Kind of its torch device.
    """

    host: str
    device: str


def examine(plan: Plan) -> Machine:
    """Make sure that this process can do its part; loads the checkpoint and opens the file.

    Raises
    ------
    JobError
        Another version of this program or of torch runs here.
    CheckpointError
        The checkpoint is missing here or another one, or the device is missing.
    DataError, PathError
        The file is missing here or another one.
    """
    with _ONE_AT_A_TIME:
        model, _ = _prepared(plan)
    return Machine(platform.node(), model.device.type)


def embed_chunk(plan: Plan, number: int) -> int:
    """Embed one chunk of cells and write it to its place; nothing is computed when it is there.

    Parameters
    ----------
    plan
        With its folder.
    number
        Of the chunk.

    Returns
    -------
    int
        Cells of the chunk.

    Raises
    ------
    StoreError
        The unfinished result cannot be seen from here, or the disk is full.
    JobError, CheckpointError, DataError, PathError
        As for `examine`; or the file holds values that cannot be used.
    """
    with _ONE_AT_A_TIME:
        vectors = VectorFolder(plan.folder)
        start, stop = vectors.cells(number)
        if vectors.is_marked(number):
            return stop - start
        model, dataset = _prepared(plan)
        torch.set_num_threads(get_worker().state.nthreads)  # the cores that dask counts as this worker's
        tokenizer = model.tokenizer
        if not model.has_entropy:
            tokenizer = Tokenizer(vectors.entropy, model.config.max_genes)
        values = np.empty((stop - start, vectors.width), np.float32)
        done = np.zeros(stop - start, bool)
        chunk = dataset.cells(start, stop)
        embed_cells(model, tokenizer, [(0, chunk)], dataset.gene_ids, done, values.__setitem__)
        vectors.write(number, values)
    return stop - start


def model_identity(model: ScDiVaModel) -> str:
    """Name what vectors depend on besides data and arithmetic: weights, genes, configuration and entropies."""
    rest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    rest.update(model.tokenizer.entropy.tobytes() if model.has_entropy else b"")
    return f"{model.sha256}-{model.vocabulary.sha256}-{rest.hexdigest()}"


@cache
def program_identity() -> str:
    """Name what computes: a digest of the source files that take part, and the version of torch."""
    package, digest = CHECKOUT / "scdiva_core", hashlib.sha256()
    for path in sorted(path for part in _TAKING_PART for path in (package / part).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{digest.hexdigest()[:12]}, torch {torch.__version__.partition('+')[0]}"


def _prepared(plan: Plan) -> tuple[ScDiVaModel, H5adDataset]:
    if program_identity() != plan.program:
        msg = f"Its program is {program_identity()}; the command's is {plan.program}."
        raise JobError(msg, "Start scheduler and workers from the same checkout and environment as the command.")
    _check_file(plan)
    return _model(plan.checkpoint, plan.model, _device(plan.device)), _dataset(replace(plan, folder=""))


def _check_file(plan: Plan) -> None:
    """Compare the file's size and time of change, which any other machine's copy may differ in, then its bytes."""
    path = Path(plan.path)
    if not path.is_file():
        msg = f"There is no file {plan.path} there."
        raise DataError(msg, "Put it where every machine sees it under this path.")
    found = path.stat()
    if (found.st_size, found.st_mtime_ns) == (plan.size, plan.mtime_ns):
        return
    if found.st_size != plan.size or file_sha256(path) != plan.sha256:
        msg = f"{plan.path} is another file there, of {found.st_size:,} bytes; the command's has {plan.size:,}."
        raise DataError(msg, "Put the same file where every machine sees it under this path.")


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
        msg = f"The device {name!r} is not available there."
        raise CheckpointError(msg, "Choose 'auto' or 'cpu'.") from error
    return name


@lru_cache(maxsize=1)
def _model(checkpoint: str, identity: str, device: str) -> ScDiVaModel:
    own = CHECKOUT / checkpoint
    model = load_pretrained(own if own.exists() else checkpoint)
    if model_identity(model) != identity:
        msg = f"The checkpoint {checkpoint} is another one there: its weights begin with {str(model.sha256)[:12]}."
        raise CheckpointError(msg, f"The command's begin with {identity[:12]}. Copy it to where every machine sees it.")
    return model.to(device)


@lru_cache(maxsize=1)
def _dataset(plan: Plan) -> H5adDataset:
    vocabulary = _model(plan.checkpoint, plan.model, _device(plan.device)).vocabulary
    return open_h5ad(plan.path, vocabulary, matrix=plan.matrix, gene_column=plan.gene_column, values=plan.values)
