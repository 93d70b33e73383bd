"""Cells of one file embedded by the workers of a dask cluster, chunk by chunk, into one zarr array.

dask.distributed brings the scheduler and starts lost chunks again elsewhere; a chunk is written once it is whole, so
that the same command goes on after anything that ends it.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Future, KilledWorker, Security, rpc

from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.distributed.vectors import VectorFolder, begin_vectors, begun_vectors
from scdiva_core.distributed.worker import (
    CHECKOUT,
    Machine,
    Plan,
    embed_chunk,
    examine,
    model_identity,
    program_identity,
)
from scdiva_core.engine import Engine
from scdiva_core.errors import JobError, ScDiVaError
from scdiva_core.tasks.embedding import CHUNK_CELLS, embedding_width, population_entropy
from scdiva_core.tasks.progress import IsCancelled, Progress, never, silent, stop_if

_RETRIES = 2  # of a chunk that failed, perhaps for a disk that was away for a moment
_CLOSE_SECONDS = 10
_LOOK_SECONDS = 2.0  # between looks whether there still are workers


@dataclass(frozen=True)
class ClusterEmbedding:
    """What workers made.

    Attributes
    ----------
    vectors
        Every chunk of it is done.
    device
        Kind of device that computed it: CUDA in bfloat16, all others in float32.
    """

    vectors: VectorFolder
    device: str


def recipe(engine: Engine, dataset: H5adDataset) -> dict[str, Any]:
    """Say what the vectors depend on, as far as it is known before any worker is asked."""
    return {
        "data_sha256": dataset.sha256,
        "matrix": dataset.preflight.recommended,
        "gene_column": dataset.preflight.gene_column,
        "values": dataset.value_kind,
        "checkpoint": model_identity(engine.model),
        "chunk_cells": chunk_size(dataset.n_obs),
    }


def chunk_size(n_obs: int) -> int:
    """Cells of a chunk: some 64 chunks of a small file, so that many workers have a part in it.

    It depends on nothing else, so that work goes on with however many workers there are. Our choice.
    """
    return min(max(-(-n_obs // 64), 64), CHUNK_CELLS)


def embed_on_workers(
    engine: Engine,
    dataset: H5adDataset,
    target: Path,
    scheduler: str,
    *,
    device: str = "auto",
    patience: float = 30.0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ClusterEmbedding:
    """Embed all cells on the workers of a dask scheduler; goes on where an earlier run was stopped.

    Every worker must see the file, the checkpoint and the target's folder under the same paths, and run this very
    program. The vectors are those that one machine of the same kind computes: the chunks are the same.

    Parameters
    ----------
    engine
        Brings the checkpoint; computes nothing here, unless the checkpoint lacks entropies.
    dataset
        The open file.
    target
        Where the result will be; the work lies beside it, see `scdiva_core.distributed.vectors`.
    scheduler
        Its address, ``tcp://host:port`` (or ``tls://``, set up as dask documents it).
    device
        Of each worker: ``"auto"`` or a torch device name.
    patience
        Seconds to wait while there is no worker; a third of it for the scheduler's answer.
    progress, cancelled
        Called after each chunk.

    Raises
    ------
    JobError
        The scheduler cannot be reached, there are no workers, one of them lacks something, or a chunk cannot be
        computed.
    StoreError
        The work cannot be written, or something else was begun for this target.
    Cancelled
        The user stopped; finished chunks are kept.
    """
    target = target.expanduser().resolve()
    made_of = recipe(engine, dataset)
    vectors = begun_vectors(target, made_of)
    missing = None if vectors is None else vectors.missing()
    if vectors is not None and not missing:
        return ClusterEmbedding(vectors, vectors.made_of["device"])
    with _connected(scheduler, patience / 3) as client:
        plan = make_plan(engine, dataset, device)
        kind = _agreed_device(client, plan, patience)
        if vectors is None:
            vectors = _begin(engine, dataset, target, {**made_of, "device": kind})
        elif vectors.made_of["device"] != kind:
            msg = f"{vectors.folder} was begun on {vectors.made_of['device']}, but the workers now compute on {kind}."
            raise JobError(msg, "Use such workers again, or delete it to begin anew: their arithmetic differs.")
        plan = replace(plan, device=kind, folder=str(vectors.folder))
        numbers = range(vectors.n_chunks) if missing is None else missing
        _Chunks(client, plan, vectors, patience).run(list(numbers), progress, cancelled)
    return ClusterEmbedding(vectors, kind)


@contextmanager
def _connected(scheduler: str, patience: float) -> Iterator[Client]:
    # Asked in a thread: a notebook runs an event loop of its own.
    with ThreadPoolExecutor(1) as pool:
        try:
            kind = pool.submit(asyncio.run, _kind_of_server(scheduler, patience)).result()
        except (OSError, ValueError, TimeoutError) as error:
            reason = "no answer" if isinstance(error, TimeoutError) else str(error)
            msg = f"No dask scheduler can be reached at {scheduler} ({reason})."
            hint = "Start one with 'python -m dask scheduler', and give the address that it prints: tcp://host:port."
            raise JobError(msg, hint) from error
    if kind != "Scheduler":
        msg = f"At {scheduler} there is a dask {kind.lower()}, not a scheduler."
        raise JobError(msg, "Give the scheduler's address; its port is 8786 unless another was chosen.")
    client = Client(scheduler, timeout=patience, set_as_default=False)
    try:
        yield client
    finally:
        client.close(timeout=_CLOSE_SECONDS)


async def _kind_of_server(address: str, patience: float) -> str:
    async with asyncio.timeout(patience):
        args = Security().get_connection_args("client")
        async with rpc(address, timeout=patience, connection_args=args) as server:
            return str((await server.identity())["type"])


def make_plan(engine: Engine, dataset: H5adDataset, device: str) -> Plan:
    """Say what every worker must find; see `Plan`."""
    stat, local = dataset.path.stat(), Path(engine.checkpoint).expanduser()
    checkpoint = engine.checkpoint
    if checkpoint == "default":
        checkpoint = str(engine.folder.relative_to(CHECKOUT))
    elif local.exists():
        checkpoint = str(local.resolve())
    return Plan(
        checkpoint=checkpoint,
        model=model_identity(engine.model),
        program=program_identity(),
        device=device,
        path=str(dataset.path.resolve()),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        sha256=dataset.sha256,
        matrix=dataset.preflight.recommended,
        gene_column=dataset.preflight.gene_column,
        values="auto" if dataset.value_kind == "normalised" else dataset.value_kind,
    )


def _agreed_device(client: Client, plan: Plan, patience: float) -> str:
    """Ask every worker whether it can do its part, and what it computes on."""
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        msg = f"The scheduler {client.scheduler.address} has had no worker for {patience:g} s."
        hint = "Start some: python -m dask worker SCHEDULER --nthreads 1 --nworkers 4."
        raise JobError(msg, hint) from error
    answers = client.run(examine, plan, on_error="return")
    for worker, answer in answers.items():
        if not isinstance(answer, Machine):
            msg = f"The worker {worker} cannot take part: {_words(answer)}"
            raise JobError(msg)
    kinds = {answer.device for answer in answers.values()}
    if len(kinds) > 1:
        msg = f"The workers compute on unlike devices: {', '.join(sorted(kinds))}; their arithmetic differs."
        raise JobError(msg, "Choose one for all with --device.")
    return kinds.pop()


def _begin(engine: Engine, dataset: H5adDataset, target: Path, made_of: dict[str, Any]) -> VectorFolder:
    target.parent.mkdir(parents=True, exist_ok=True)
    model = engine.model
    sizes = {"n_obs": dataset.n_obs, "width": embedding_width(model), "chunk_cells": chunk_size(dataset.n_obs)}
    entropy = None if model.has_entropy else population_entropy(dataset, model.config.vocab_size)
    return begin_vectors(target, made_of, entropy=entropy, **sizes)


class _Chunks:
    """Chunks handed to the workers."""

    def __init__(self, client: Client, plan: Plan, vectors: VectorFolder, patience: float) -> None:
        self._client, self._vectors, self._patience = client, vectors, patience
        self._plan = plan
        self._last_seen = time.monotonic()

    def run(self, numbers: list[int], progress: Progress, cancelled: IsCancelled) -> None:
        """Compute those of these numbers."""
        sizes = {number: stop - start for number in numbers for start, stop in [self._vectors.cells(number)]}
        total, left = self._vectors.n_obs, sum(sizes.values())
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        task = partial(embed_chunk, self._plan)
        futures = self._client.map(task, numbers, pure=False, retries=_RETRIES)
        number_of = dict(zip((future.key for future in futures), numbers, strict=True))
        try:
            for future in futures:
                future.add_done_callback(ended.put)
            while number_of:
                progress(total - left, total, f"Embedding cells on {self._workers()} workers")
                stop_if(cancelled)
                try:
                    future = ended.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                number = number_of.pop(future.key)
                self._check(future, number)
                left -= sizes[number]
            progress(total, total, "Embedding cells")
        finally:
            if number_of:
                self._client.cancel(futures)

    def _workers(self) -> int:
        """How many there are; none for longer than one has patience ends the work."""
        try:
            workers = len(self._client.nthreads())
        except (OSError, RuntimeError, TimeoutError) as error:
            raise self._gone() from error
        now = time.monotonic()
        if workers:
            self._last_seen = now
        elif now - self._last_seen > self._patience:
            msg = f"All workers are gone, and none has come for {self._patience:g} s."
            raise JobError(msg, "Start some; the same command goes on from here.")
        return workers

    def _check(self, future: Future, number: int) -> None:
        """Say in words why a chunk could not be computed."""
        if future.status == "finished":
            return
        if future.status != "error":
            raise self._gone()
        error = future.exception()
        start, stop = self._vectors.cells(number)
        msg = f"Cells {start + 1:,} to {stop:,} could not be embedded: {_words(error)}"
        raise JobError(msg, "Finished chunks are kept: the same command goes on from here.")

    def _gone(self) -> JobError:
        msg = "The dask scheduler is gone."
        return JobError(msg, "Start scheduler and workers anew; the same command goes on from here.")


def _words(error: BaseException) -> str:
    """What went wrong on a worker."""
    if isinstance(error, ScDiVaError):
        return str(error)
    if isinstance(error, KilledWorker):
        many = error.allowed_failures + 1
        return f"{many} workers ended while they computed them. Give each more memory (--memory-limit), or start fewer."
    if isinstance(error, ModuleNotFoundError):
        return f"It does not find {error.name}. Start workers in the checkout, with its own environment."
    return f"{type(error).__name__}: {error}"
