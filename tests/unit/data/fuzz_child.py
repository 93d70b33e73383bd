"""Reads one path a line, opens that file as a user would, and answers with one line of JSON.

Run as a process of its own: a crash or hang inside the HDF5 library then shows as a dead or silent child.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from scdiva_core.data.h5ad import open_h5ad  # noqa: E402
from scdiva_core.data.preflight import preflight  # noqa: E402
from scdiva_core.data.vocabulary import human_genes  # noqa: E402
from scdiva_core.errors import ScDiVaError  # noqa: E402

MEMORY = 4 << 30


def use(path: str) -> None:
    """Do all that can be done with a data file."""
    json.dumps(preflight(path, human_genes()).to_dict()).encode()
    with open_h5ad(path, human_genes()) as dataset:
        for _, chunk in dataset.chunks(rows=16):
            if not (chunk.data >= 0).all():
                message = "a negative or NaN value came through"
                raise AssertionError(message)
        if dataset.value_kind == "counts":
            list(dataset.count_chunks())
        dataset.gene(dataset.gene_symbols[0])
        dataset.obs.memory_usage(deep=True)


def answer(path: str) -> dict[str, str]:
    """Say how it ended."""
    try:
        use(path)
    except ScDiVaError as error:
        return {"outcome": "refused", "text": str(error)}
    except BaseException:
        return {"outcome": "unexpected", "text": traceback.format_exc()}
    return {"outcome": "read", "text": ""}


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    human_genes().match(["CD3D", "no gene"])
    for line in sys.stdin:
        print(json.dumps(answer(line.rstrip("\n"))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
