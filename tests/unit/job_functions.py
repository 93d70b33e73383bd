"""Functions that the tests of the job queue let real worker processes run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scdiva_core.errors import DataError


def add(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    context.progress(1, 1, "adding")
    return {"sum": payload["a"] + payload["b"], "pid": os.getpid(), "device": context.device}


def note(payload: dict[str, Any], context: Any) -> None:
    """Append a line to a file: who ran, in which order, how often."""
    with Path(payload["file"]).open("a") as file:
        file.write(f"{payload['name']}\n")
    time.sleep(payload.get("seconds", 0))


def loaded_modules(payload: dict[str, Any], context: Any) -> list[str]:
    return sorted({name.split(".")[0] for name in sys.modules})


def steps(payload: dict[str, Any], context: Any) -> str:
    """Report half, then wait to be cancelled or for a file."""
    context.progress(0, 10, "begins")
    time.sleep(0.05)
    context.progress(5, 10, "half-way")
    while not Path(payload.get("until", "never")).exists():
        context.check()
        time.sleep(0.01)
    return "released"


def keeps(payload: dict[str, Any], context: Any) -> str:
    """Ask for time, wait to be cancelled, and take longer over keeping what was made than others are given."""
    context.allow(60)
    Path(payload["file"]).write_text("in")
    while not context.cancelled():
        time.sleep(0.01)
    time.sleep(5)
    return "kept"


def stuck(payload: dict[str, Any], context: Any) -> None:
    """Never look at the context; leave a child behind that would live on."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(payload["file"]).write_text(str(child.pid))
    time.sleep(600)


def holds_the_interpreter(payload: dict[str, Any], context: Any) -> None:
    """Native code that no other thread gets past, not even the watchdog."""
    Path(payload["file"]).write_text("in")
    sum(range(10**11))


def dies(payload: dict[str, Any], context: Any) -> None:
    os._exit(9)


def grows(payload: dict[str, Any], context: Any) -> None:
    """Take memory until it is ended."""
    held = []
    while True:
        held.append(bytearray(b"x" * 5_000_000))
        time.sleep(0.02)


def killed(payload: dict[str, Any], context: Any) -> None:
    """Be killed, as by a system that has no memory left."""
    with Path(payload["file"]).open("a") as file:
        file.write("in\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wrong_file(payload: dict[str, Any], context: Any) -> None:
    message = "0 of 2,000 genes are known."
    raise DataError(message, "Choose the symbol column.")


def breaks(payload: dict[str, Any], context: Any) -> None:
    secret = "patient 17"
    raise KeyError(secret)


def leaves(payload: dict[str, Any], context: Any) -> None:
    sys.exit(3)


def no_json(payload: dict[str, Any], context: Any) -> object:
    return object()


def fill(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """Fill a partial array batch by batch, noting each row that is computed."""
    import numpy as np

    from scdiva_core.store import ResultStore

    n_rows, batch = payload["n_rows"], payload["batch"]
    partial = ResultStore(payload["store"]).partial(payload["result"], n_rows, 2)
    with Path(payload["log"]).open("a", buffering=1) as log:
        left = np.flatnonzero(~partial.done)
        for start in range(0, len(left), batch):
            rows = left[start : start + batch]
            time.sleep(payload["seconds"])
            partial.write(rows, rows[:, None] * np.ones(2))
            log.writelines(f"{row}\n" for row in rows)
            context.progress(int(partial.done.sum()), n_rows)
    return {"key": partial.finish({}).key}
