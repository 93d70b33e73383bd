"""Reads one path a line, uses that file as the app would, and answers with one line of JSON.

Run as a process of its own with little memory: a crash or hang inside the HDF5 library then shows as a dead or
silent child.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402

from scdiva_core.data.h5ad import H5adDataset, open_h5ad  # noqa: E402
from scdiva_core.data.obsm import obsm_widths, read_obsm  # noqa: E402
from scdiva_core.data.preflight import preflight  # noqa: E402
from scdiva_core.data.tokenizer import Tokenizer  # noqa: E402
from scdiva_core.data.vocabulary import human_genes  # noqa: E402
from scdiva_core.errors import ScDiVaError  # noqa: E402
from scdiva_core.tasks.export import write_result  # noqa: E402

MEMORY = 3 << 30
"""Bytes that the process may take beyond what its libraries took."""
SECONDS = 10
"""Time on a processor that a file may take; a busy machine must not look like a hang."""


def use(path: Path) -> None:
    """Do all that the app does with a data file; each part is tried, whatever became of the one before."""
    problems = []
    for part in (_look, _coordinates, _read):
        try:
            part(path)
        except ScDiVaError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def _look(path: Path) -> None:
    json.dumps(preflight(path).to_dict()).encode()


def _coordinates(path: Path) -> None:
    for name in obsm_widths(path):
        try:
            read_obsm(path, name)
        except ScDiVaError:
            continue


def _read(path: Path) -> None:
    vocabulary = human_genes()
    tokenizer = Tokenizer.unweighted(len(vocabulary), 64)
    with open_h5ad(path, vocabulary, min_share=0.01) as cells:
        for _, chunk in cells.chunks(rows=16):
            if not (chunk.data >= 0).all():
                message = "a negative or NaN value came through"
                raise AssertionError(message)
            tokenizer.serialize(chunk.indptr, chunk.indices, chunk.data, cells.gene_ids)
        cells.gene(cells.gene_symbols[0])
        _tables(cells)
        _export(cells)


def _tables(cells: H5adDataset) -> None:
    table = cells.obs
    if len(table) != cells.n_obs or len(cells.obs_names) != cells.n_obs:
        message = f"{len(table)} rows of obs for {cells.n_obs} cells"
        raise AssertionError(message)
    for column in table:
        table[column].astype(str).head(100)


def _export(cells: H5adDataset) -> None:
    if cells.n_obs > 1000:
        return
    with tempfile.TemporaryDirectory() as folder:
        embedding = np.zeros((cells.n_obs, 2), np.float32)
        write_result(cells, Path(folder) / "out.h5ad", embedding=embedding, provenance={})


def answer(path: str) -> dict[str, object]:
    """Say how it ended."""
    began = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(began) + SECONDS, hard))  # then the system ends the process
    outcome, text = "read", ""
    try:
        use(Path(path))
    except ScDiVaError as error:
        outcome, text = "refused", str(error)
    except BaseException:
        outcome, text = "unexpected", traceback.format_exc()
    return {"outcome": outcome, "text": text, "seconds": time.process_time() - began, "peak": _peak()}


def _peak() -> int:
    """Most memory of this process so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _mapped() -> int:
    """Bytes of addresses in use."""
    status = Path("/proc/self/statm")
    pages = int(status.read_text().split()[0]) if status.exists() else 0
    return pages * resource.getpagesize()


def main() -> None:
    """Answer until the input ends."""
    warnings.simplefilter("ignore")
    human_genes().match(["CD3D", "no gene"])
    print(json.dumps({"ready": True, "peak": _peak()}), flush=True)  # noqa: T201
    limit = _mapped() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        print(json.dumps(answer(line.rstrip("\n"))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
