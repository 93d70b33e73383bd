"""Fail a green test run that left out what it was meant to test.

Usage: ``python .ci/check_report.py build/tests.xml build/tests.log``. Silent when all is well.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

# The one thing that a machine of ours may lack.
EXCUSED = re.compile(r"\b(CUDA|GPU)\b")


def complaints(report: Path, log: Path) -> list[str]:
    """List what is missing from a run.

    Parameters
    ----------
    report
        JUnit XML that pytest wrote.
    log
        Its terminal output; deselected tests are counted only there.

    Returns
    -------
    list of str
        One line a complaint, empty when everything ran.
    """
    cases = list(ET.parse(report).iter("testcase"))
    # A file skipped as a whole has an empty class name and its path in the name.
    names = [f"{case.get('classname', '')}.{case.get('name')}".lstrip(".") for case in cases]
    found = []
    if not any(name.startswith("tests.browser.") for name in names):
        found.append("no test under tests/browser ran")
    for name, case in zip(names, cases, strict=True):
        skipped = case.find("skipped")
        if skipped is None:
            continue
        reason = skipped.text or ""
        if name.startswith("tests.browser.") or not EXCUSED.search(reason):
            found.append(f"skipped: {name} ({reason})")
    deselected = re.search(r"^=+ .*?(\d+) deselected", log.read_text(encoding="utf-8"), re.MULTILINE)
    if deselected:
        found.append(f"{deselected[1]} tests were deselected")
    return found


if __name__ == "__main__":
    problems = complaints(Path(sys.argv[1]), Path(sys.argv[2]))
    for problem in problems:
        print(f".ci/run: {problem}", file=sys.stderr)
    sys.exit(bool(problems))
