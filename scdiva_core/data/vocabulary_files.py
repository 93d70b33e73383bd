"""The file formats a gene vocabulary comes in: JSON, text, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from scdiva_core.errors import VocabularyError

_TOKEN_COLUMNS = ("token", "gene", "symbol", "gene_symbol", "gene_name", "feature_name")
_ID_COLUMNS = ("id", "index", "token_id", "gene_id", "")  # pandas leaves the header of its index empty
_MAX_ID = 10_000_000
_HINT = "Expected vocab.json ({token: id} or a list), vocab.txt (one a line) or gene_vocab.csv (gene, id)."


def read_tokens(path: Path) -> list[str]:
    """Read the tokens of a vocabulary file in the order of their ids.

    Parameters
    ----------
    path
        ``.json``, ``.csv``, or text with one token a line.

    Returns
    -------
    list of str
        Ids that the file leaves out are filled with ``<unused_N>``.

    Raises
    ------
    VocabularyError
        The file is missing or malformed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"The vocabulary {path.name} cannot be read: {error.strerror}."
        raise VocabularyError(message, _HINT) from error
    except ValueError as error:
        message = f"The vocabulary {path.name} is not UTF-8 text."
        raise VocabularyError(message, _HINT) from error
    parsers = {".json": _from_json, ".csv": _from_csv}
    return parsers.get(path.suffix.lower(), _from_lines)(text, path.name)


def _from_lines(text: str, name: str) -> list[str]:
    """Read one token a line; the last line may or may not end in a newline."""
    del name
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _from_json(text: str, name: str) -> list[str]:
    """Read a mapping of token to id, or a list of tokens."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"The vocabulary {name} is not JSON: {error}."
        raise VocabularyError(message, _HINT) from error
    if isinstance(content, dict):
        return _in_order(content.items(), name)
    if isinstance(content, list) and all(isinstance(token, str) for token in content):
        return content
    message = f"The vocabulary {name} is neither a mapping of token to id nor a list of strings."
    raise VocabularyError(message, _HINT)


def _from_csv(text: str, name: str) -> list[str]:
    """Read a token column, and an id column unless the order of the lines is the order of the ids."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        message = f"The vocabulary {name} is not CSV: {error}."
        raise VocabularyError(message, _HINT) from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    token_column = next((header.index(word) for word in _TOKEN_COLUMNS if word in header), None)
    if token_column is None:
        if any(len(row) > 1 for row in rows):
            message = f"The vocabulary {name} has no column called gene or token: {', '.join(rows[0][:5])}."
            raise VocabularyError(message, _HINT)
        return [row[0] for row in rows]
    if any(len(row) != len(header) for row in rows):
        message = f"The vocabulary {name} has lines that do not have {len(header)} cells like its first."
        raise VocabularyError(message, _HINT)
    id_column = next((header.index(word) for word in _ID_COLUMNS if word in header), None)
    if id_column is None:
        return [row[token_column] for row in rows[1:]]
    return _in_order(((row[token_column], row[id_column]) for row in rows[1:]), name)


def _in_order(pairs: Iterable[tuple[str, object]], name: str) -> list[str]:
    """Put tokens at their ids; refuse ids that are no numbers, negative, absurd or taken."""
    by_id: dict[int, str] = {}
    for token, value in pairs:
        number = _token_id(value)
        if number is None:
            message = f"The vocabulary {name} gives {token!r} the id {value!r}, which is no token id."
            raise VocabularyError(message, _HINT)
        if number in by_id:
            message = f"The vocabulary {name} gives id {number} to both {by_id[number]!r} and {token!r}."
            raise VocabularyError(message, _HINT)
        by_id[number] = token
    return [by_id.get(i, f"<unused_{i}>") for i in range(max(by_id, default=-1) + 1)]


def _token_id(value: object) -> int | None:
    """Return a whole number from 0 to ten million, or None."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) < 12 else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_ID else None
