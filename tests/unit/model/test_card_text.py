"""Model cards: read with care, and made fit for a page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scdiva_core.engine import Engine
from scdiva_core.model.card_text import MAX_BYTES, as_part_of_a_page, read_card_text, split_tables
from scdiva_core.store import ResultStore


def test_the_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("\ufeff# Größe\n\n$5".encode())
    assert read_card_text(tmp_path) == "# Größe\n\n$5"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * (MAX_BYTES + 1)])
def test_what_cannot_be_read_is_empty(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "README.md").write_bytes(content)
    assert read_card_text(tmp_path) == ""


def test_a_card_of_the_greatest_length_and_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"x" * MAX_BYTES)
    assert len(read_card_text(tmp_path)) == MAX_BYTES
    (tmp_path / "other" / "README.md").mkdir(parents=True)
    assert read_card_text(tmp_path / "other") == ""


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("![A map](https://x.org/a.png)", "A map"),
        ('![A map](<a b.png> "title") there', "A map there"),
        ("![A map](a(1).png)", "A map"),
        ("![A [small] map](a.png)", "A [small] map"),
        ("![A map][ref]\n\n[ref]: https://x.org/a.png", "A map\n\n[ref]: https://x.org/a.png"),
        ("![ref]\n\n[ref]: https://x.org/a.png", "ref\n\n[ref]: https://x.org/a.png"),
        ("[![build](b.svg)](https://x.org)", "[build](https://x.org)"),
        ("![two\nlines](a.png)", "two\nlines"),
        ('<img src="https://x.org/a.png" alt="A map" width=3>', "A map"),
        ("<IMG SRC=a.png>end", "end"),
        (r"\![not an image](a.png)", r"\! [not an image](a.png)"),
        ("![`code` inside](a.png)", "! [`code` inside](a.png)"),
        ("`![a](b)` and `vec![1]`", "`! [a](b)` and `vec! [1]`"),
        ("```\n![a](b)\n```", "```\n! [a](b)\n```"),
    ],
)
def test_images_become_their_alternative_text(written: str, shown: str) -> None:
    assert as_part_of_a_page(written) == shown


@pytest.mark.parametrize(
    "hidden",
    [
        "<div>\n```\n\n![a](https://x.org/a.png)",  # no fence: the HTML swallows it
        "`` ` ![a](https://x.org/a.png)",
        "\\\\![a](https://x.org/a.png)",
        "    ```\n![a](https://x.org/a.png)\n    ```",
        "> ```\n![a](https://x.org/a.png)",
        "![![a](https://x.org/a.png)](https://x.org/b.png)",
        "!![a](https://x.org/a.png)[b](https://x.org/b.png)",
        "!<img>[a](https://x.org/a.png)",
        "!<!-- -->[a](https://x.org/a.png)",
    ],
)
def test_no_image_is_left_however_it_hides(hidden: str) -> None:
    assert "![" not in as_part_of_a_page(hidden)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("# One\n## Two\n#### Four\n###### Six", "### One\n#### Two\n###### Four\n###### Six"),
        ("#5 is no heading", "#5 is no heading"),
        ("One\n===\n\nTwo\n---", "### One\n\n#### Two"),
        ("> # Quoted\n- # Listed\n1. # Counted", "> ### Quoted\n- ### Listed\n1. ### Counted"),
        ("> One\n> ===", "> One\n> \\==="),
        ("| a |\n|---|\n| b |\n---", "| a |\n|---|\n| b |\n---"),
        ("- item\n---", "- item\n---"),
        ("```bash\n# a comment\nOne\n===\n```\n# One", "```bash\n# a comment\nOne\n===\n```\n### One"),
        ("~~~\n# a\n```\n# b\n~~~\n# One", "~~~\n# a\n```\n# b\n~~~\n### One"),
    ],
)
def test_headings_move_below_the_page_s(written: str, shown: str) -> None:
    assert as_part_of_a_page(written) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("from $5 to $10", r"from \$5 to \$10"),
        ("$$x$$", r"\$\$x\$\$"),
        (r"already \$5", r"already \$5"),
        (r"a backslash \\$5", r"a backslash \\\$5"),
        ("`$HOME` and $5", r"`$HOME` and \$5"),
        ("```\necho $HOME\n```", "```\necho $HOME\n```"),
        (":red[danger] and :blue-badge[x]", r"\:red[danger] and \:blue-badge[x]"),
        ("See: https://x.org:80/a, CL:0000084", "See: https://x.org:80/a, CL:0000084"),
    ],
)
def test_signs_of_formulas_and_colours_are_signs(written: str, shown: str) -> None:
    assert as_part_of_a_page(written) == shown


def test_front_matter_and_comments_go() -> None:
    assert (
        as_part_of_a_page("---\nlicense: mit\n---\n\n<!-- for\nus -->\nText\r\n<!-- us -->more<!-- -->") == "Text\nmore"
    )
    assert as_part_of_a_page("A\n\n---\n\nB") == "A\n\n---\n\nB"


def test_tables_and_links_stay() -> None:
    text = "| set | **PCA** |\n|---|---:|\n| blood | 0.9 |\n\n[paper](https://x.org/a_(b))"
    assert as_part_of_a_page(text) == text


def test_tables_are_taken_out_of_the_text() -> None:
    text = "Before\n| a | b |\n|:--|--:|\n| 1 | `x\\|y` |\n| 2 |\n3 | 4 | 5\n\nAfter | this\n\na | b\n- | -"
    before, first, after, second = split_tables(text)
    assert (before.strip(), after.strip()) == ("Before", "After | this")
    assert first == [["a", "b"], ["1", "`x|y`"], ["2", ""], ["3", "4"]]
    assert second == [["a", "b"]]


@pytest.mark.parametrize(
    "text",
    [
        "```\n| a |\n|---|\n| 1 |\n```",
        "| a | b |\n|---|\n| 1 |",
        "> | a |\n> |---|\n> | 1 |",
        "    | a |\n    |---|",
        "One\n---\nTwo",
        "a | b",
    ],
)
def test_what_is_no_table_of_the_page_stays(text: str) -> None:
    (piece,) = split_tables(text)
    assert piece == text + "\n"


def test_nothing_is_nothing() -> None:
    assert split_tables("") == []


def test_the_engine_tells_the_card_beside_its_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    store = ResultStore(tmp_path / "results")
    assert Engine(folder, "cpu", store).card().text == ""
    (folder / "README.md").write_text("# Tiny")
    for source in (folder, folder / "model.safetensors"):
        engine = Engine(source, "cpu", store)
        assert engine.card().text == "# Tiny"
        assert engine.folder == folder
