"""What commands say on standard error while they work."""

from __future__ import annotations

import shutil
import sys
import time


def warn(text: str) -> None:
    """Say on standard error what the user should know."""
    print(f"warning: {text}", file=sys.stderr)


class TerminalProgress:
    """One line on standard error over all steps: share done, what is going on, how long still."""

    def __init__(self) -> None:
        self._began, self._first = time.monotonic(), -1.0

    def __call__(self, done: int, total: int, message: str) -> None:
        """Report; see `scdiva_core.tasks.progress.Progress`."""
        share, now = done / max(total, 1), time.monotonic()
        if self._first < 0:
            self._began, self._first = now, share
        line, elapsed = f"{share:4.0%} {message}", now - self._began
        if elapsed > 2 and share - self._first > 0.02:
            line += f", about {elapsed * (1 - share) / (share - self._first):,.0f} s left"
        if not sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be written over
        print(line[:width].ljust(width), end="\r", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the last line standing."""
        if self._first >= 0 and sys.stderr.isatty():
            print(file=sys.stderr)
