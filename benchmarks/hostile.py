"""``python -m benchmarks.hostile -n 2000``: open hostile files as the app does, and count how each ended.

Not part of ``make bench``: it measures no speed. Files that made trouble are kept in the folder that it names.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile_run import run

_COLUMNS = ("read", "refused", "unexpected", "crash", "hang", "touched")


def main() -> None:
    """Print the table; end with status 1 where anything but a result or a refusal was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=2000, metavar="FILES", help="how many (default 2000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="number of the first file")
    options = parser.parse_args()
    keep = Path(tempfile.mkdtemp(prefix="scdiva-hostile-"))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), range(options.first, options.first + options.n), keep)
    seconds, slowest = report.slowest
    print("| files | " + " | ".join(_COLUMNS) + " | slowest | peak memory |")
    print("|" + " ---: |" * (len(_COLUMNS) + 3))
    counts = " | ".join(f"{report.outcomes[name]:,}" for name in _COLUMNS)
    print(f"| {report.files:,} | {counts} | {seconds:.1f} s | {report.peak_bytes / 1e6:,.0f} MB |")
    print(f"\n{time.perf_counter() - began:.0f} s in all; the slowest was {slowest}.")
    for problem in report.problems:
        print(f"\n{problem}")
    if report.problems:
        print(f"\nThe files lie in {keep}.")
        sys.exit(1)
    keep.rmdir()


if __name__ == "__main__":
    main()
