"""The model card: the README.md beside a checkpoint's weights, as it is and as a part of a page.

Both come from a file that somebody may have downloaded: nothing in it may load anything or pass for the page's own.
"""

from __future__ import annotations

import re
from pathlib import Path

FILE = "README.md"
MAX_BYTES = 200_000
"""A longer file is no card."""

_DEMOTED = 2
"""Levels that headings move down, so that they stand below a page's title and its sections."""

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
# A run of backticks up to the next of the same length, in one paragraph. Not far: hostile text must not take long.
_CODE_SPAN = re.compile(r"(?<![\\`])(`+)(?!`)(?:(?!\n[ \t]*\n).){1,400}?(?<!`)\1(?!`)", re.DOTALL)
_COMMENT = re.compile(r"^ {0,3}<!--.*?(?:-->|\Z)|<!--[^<\n]*-->", re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"<img\b[^<>]*>", re.IGNORECASE)
_TAG_ALT = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_IMAGE = re.compile(
    r"(?<!\\)!\[(?P<alt>(?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]"
    r"(?:\((?:[^()\\\n]|\\.|\([^()\n]*\))*\)|\[[^\[\]\n]*\])?"
)
_HEADING = re.compile(r"^((?:[ \t]*(?:>|[*+-][ \t]|\d{1,9}[.)][ \t]))* {0,3})(#{1,6})(?=[ \t]|$)", re.MULTILINE)
_UNDERLINED = re.compile(r"^ {0,3}(?![ >|#*+-]|\d+[.)] )(\S[^\n]*)\n {0,3}(=+|-{2,})[ \t]*$", re.MULTILINE)
_UNDERLINE = re.compile(r"^([ \t>]*)=(?==*[ \t]*$)", re.MULTILINE)
# An escaped sign is passed over; else a formula's dollar, or the colon of `:red[…]`.
_MARKS = re.compile(r"\\.|\$|:(?=[A-Za-z][\w-]*\[)")
_DELIMITER = re.compile(r" {0,3}(?=[^|]*\|)\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_BAR = re.compile(r"(?<!\\)\|")

Rows = list[list[str]]


def read_card_text(folder: Path) -> str:
    """Read a checkpoint's model card.

    Parameters
    ----------
    folder
        Where the weights lie.

    Returns
    -------
    str
        Markdown as it was written; empty when there is none, or when it is longer than `MAX_BYTES` or no UTF-8.
    """
    path = folder / FILE
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return content.decode("utf-8-sig") if len(content) <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError):
        return ""


def as_part_of_a_page(text: str) -> str:
    """Make a card fit to stand inside a page that has a title of its own.

    Images become their alternative text, so that nothing is loaded from elsewhere; headings move down two levels;
    dollars and the colons of Streamlit's coloured text become plain signs; front matter and comments go. Code stays
    as it is, but for ``![``, which gets a space: what is code the renderer decides, and no image may depend on that.

    Parameters
    ----------
    text
        Markdown (CommonMark with GitHub's tables) from any source.
    """
    text = _FRONT_MATTER.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    parts = [part if is_code else _prose(part) for part, is_code in _blocks(text)]
    return "\n".join(parts).replace("![", "! [").strip()


def split_tables(text: str) -> list[str | Rows]:
    """Take a card's tables out of its text, so that each may scroll where it is wider than the page.

    Parameters
    ----------
    text
        From `as_part_of_a_page`.

    Returns
    -------
    list
        In their order: Markdown, and tables as rows of cells in Markdown, all of one length, headings first. Tables
        inside lists and quotations stay in the Markdown.
    """
    pieces: list[str | Rows] = [""]
    for part, is_code in _blocks(text):
        lines = part.split("\n")
        while lines:
            table = [] if is_code else _table(lines)
            if table:
                del lines[: len(table) + 1]
                pieces += [table, ""]
            else:
                pieces[-1] += lines.pop(0) + "\n"
    return [piece for piece in pieces if isinstance(piece, list) or piece.strip()]


def _table(lines: list[str]) -> Rows:
    """Rows of a table that begins with the first line; empty when none does."""
    if len(lines) < 2 or "|" not in lines[0] or not _DELIMITER.fullmatch(lines[1]):
        return []
    headings = _cells(lines[0])
    if lines[0].startswith((" " * 4, "\t")) or len(_cells(lines[1])) != len(headings):
        return []
    rows = [headings]
    for line in lines[2:]:
        if "|" not in line:
            break
        rows.append((_cells(line) + [""] * len(headings))[: len(headings)])
    return rows


def _cells(line: str) -> list[str]:
    inside = line.strip().removeprefix("|")
    inside = inside[:-1] if inside.endswith("|") and not inside.endswith("\\|") else inside
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(inside)]


def _blocks(text: str) -> list[tuple[str, bool]]:
    """Lines in runs: prose, and fenced code with its fences."""
    runs: list[tuple[list[str], bool]] = [([], False)]
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if not fence and found:
            fence = found[1]
            runs.append(([line], True))
            continue
        runs[-1][0].append(line)
        closing = line.strip()
        if fence and found and set(closing) == {fence[0]} and len(closing) >= len(fence):
            fence = ""
            runs.append(([], False))
    return [("\n".join(lines), is_code) for lines, is_code in runs if lines]


def _prose(text: str) -> str:
    """Change everything but code spans."""
    text = _COMMENT.sub("", text)
    done, position = [], 0
    for span in _CODE_SPAN.finditer(text):
        done += [_plain(text[position : span.start()]), span[0]]
        position = span.end()
    text = "".join([*done, _plain(text[position:])])
    text = _UNDERLINED.sub(lambda found: f"{'#' * (1 if found[2][0] == '=' else 2)} {found[1]}", text)
    text = _HEADING.sub(lambda found: found[1] + "#" * min(len(found[2]) + _DEMOTED, 6), text)
    return _UNDERLINE.sub(r"\1\\=", text)


def _plain(text: str) -> str:
    text = _TAG.sub(lambda tag: "".join(map("".join, _TAG_ALT.findall(tag[0]))), text)
    text = _IMAGE.sub(lambda image: image["alt"], text)
    return _MARKS.sub(lambda found: found[0] if found[0][0] == "\\" else f"\\{found[0]}", text)
