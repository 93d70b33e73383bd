"""What the parts of an integration's page share: the result at hand."""

from __future__ import annotations

from dataclasses import dataclass

from pages._ui import frame, maps, state
from pages._ui.integration_work import Asked
from scdiva_core.data.h5ad import H5adDataset
from scdiva_core.engine_integration import FINETUNED, IntegrationResult
from scdiva_core.tasks.integration import METHODS


@dataclass(frozen=True)
class Shown:
    """An integration on the page.

    Parameters
    ----------
    choice, cells, found
        The open data set and its maps.
    item, result
        What was asked for, and what came of it.
    file
        What files of it are called.
    """

    choice: state.Choice
    cells: H5adDataset
    found: maps.Found
    item: Asked
    result: IntegrationResult
    file: str

    @property
    def methods(self) -> list[str]:
        """Names of the methods that were made."""
        return list(self.result.vectors)

    @property
    def best_of_ours(self) -> str:
        """The fine-tuned vectors where there are some, else the embedding as it is."""
        return FINETUNED if FINETUNED in self.result.vectors else "scdiva"


def title(method: str) -> str:
    """What a method is called."""
    return METHODS.get(method, method)


def note(method: str) -> str:
    """Warning that travels with pictures of a method; empty for those without the model."""
    return frame.weights_note() if method.startswith("scdiva") else ""
