"""One perturbation or screen that was asked for, and what it is called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdiva_core.engine_knockout import KnockoutSettings, ScreenSettings
from scdiva_core.lazy import cached_property
from scdiva_core.tasks.perturbation import Perturbation


@dataclass(frozen=True, eq=False)
class Asked:
    """One perturbation, or one screen, of some cells.

    Parameters
    ----------
    settings
        What is done and how it is looked at.
    cells
        int64, places of the cells in the file, ascending; None for all.
    """

    settings: KnockoutSettings | ScreenSettings
    cells: NDArray[np.int64] | None

    @cached_property
    def key(self) -> str:
        """What tells it from all others."""
        places = b"" if self.cells is None else np.asarray(self.cells, np.int64).tobytes()
        plain = json.dumps(self.settings.to_dict(), sort_keys=True)
        return hashlib.sha256(plain.encode() + places).hexdigest()[:16]

    @property
    def what(self) -> str:
        """What is done: ``SPI1 and CEBPA knocked out``; of a screen how many genes and what is done to each."""
        settings = self.settings
        if isinstance(settings, KnockoutSettings):
            return Perturbation(settings.genes, settings.mode, settings.factor).title
        one = Perturbation(("GENE",), settings.mode, settings.factor).title.removeprefix("GENE ")
        return f"{len(settings.genes):,} genes, each {one}"

    @property
    def title(self) -> str:
        """What is done, and in which cells."""
        return self.what if self.cells is None else f"{self.what} in {self.settings.cells}"

    @property
    def how(self) -> str:
        """What tells it from the same perturbation looked at in another way."""
        settings = self.settings
        donors = getattr(settings, "donor_key", None)
        told = f"by {settings.group_key or 'Leiden cluster'}, at most {settings.most_cells:,} cells"
        return f"{told}, donors {donors}" if donors else told
