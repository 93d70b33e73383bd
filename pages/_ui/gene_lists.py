"""Names of genes to search among, fetched by the browser once: ``GET /api/genes/{digest}`` beside the Streamlit app.

A list of twenty thousand options in a widget is sent with every run of a page and kept for every session. Here the
page names the list by its SHA-256, and whoever knows that may fetch it; browsers keep it.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pages._ui.downloads import from_root
from scdiva_core.data.hgnc import gene_names

_MOST_LISTS = 16  # of files that are open, about a megabyte each
_HEADERS = {
    "Cache-Control": "private, max-age=604800, immutable",
    "Content-Encoding": "gzip",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, eq=False)
class GeneList:
    """Genes to choose from.

    Parameters
    ----------
    symbols
        In alphabetical order, each once.
    body
        What the browser gets, gzip of UTF-8: a line for each gene, its symbol and after tabs all its other names.
    digest
        SHA-256 of the body, hexadecimal.
    """

    symbols: tuple[str, ...]
    body: bytes = field(repr=False)
    digest: str

    @property
    def address(self) -> str:
        """URL of the list, from the server's root."""
        return from_root(f"/api/genes/{self.digest}")


_lists: WeakValueDictionary[str, GeneList] = WeakValueDictionary()
_registering = threading.Lock()


@lru_cache(maxsize=_MOST_LISTS)
def gene_list(symbols: tuple[str, ...]) -> GeneList:
    """List genes with all their names, to be fetched as long as this function remembers it.

    Parameters
    ----------
    symbols
        In any order.
    """
    ordered = tuple(sorted(set(symbols)))
    others = gene_names().others()
    lines = ("\t".join((symbol, *_also_called(symbol, others))) for symbol in ordered)
    body = gzip.compress("\n".join(lines).encode("utf-8", "replace"), mtime=0)  # equal lists have equal addresses
    made = GeneList(ordered, body, hashlib.sha256(body).hexdigest())
    with _registering:  # two that make one list at once, or list its genes in another order, hold the same
        return _lists.setdefault(made.digest, made)


def gene_list_routes() -> list[Route]:
    """Routes for ``st.App(..., routes=gene_list_routes())``."""
    return [Route("/api/genes/{digest}", _send, methods=["GET"])]


def _also_called(symbol: str, others: dict[str, tuple[str, ...]]) -> list[str]:
    gene = gene_names().resolve(symbol)
    if gene is None:
        return []
    names = (gene[0], *others.get(gene[0], ()))
    return [name for name in names if name.casefold() != symbol.casefold()]


async def _send(request: Request) -> Response:
    found = _lists.get(request.path_params["digest"])
    if found is None:
        return PlainTextResponse("This list of genes is no longer there. Reload the page.", 404)
    return Response(found.body, media_type="text/plain; charset=utf-8", headers=_HEADERS)
