"""``python -m benchmarks``: print every table as Markdown; nothing else should run meanwhile."""

from __future__ import annotations

import os
import platform

import torch

from benchmarks import annotation, embedding, grn, knockout, serialization


def main() -> None:
    """Print the machine, then each table."""
    kind = "CUDA: " + torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {kind}\n")
    print(serialization.table(), end="\n\n", flush=True)
    for tables in (embedding.tables(), annotation.tables(), knockout.tables()):
        for text in tables:
            print(text, end="\n\n", flush=True)
    print(grn.table(), flush=True)


if __name__ == "__main__":
    main()
