"""The rules that keep the project's parts apart, its README true and its users' data at home."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400

# What each part of scdiva_core may import from it. A part that is missing here has no place yet: give it one.
_MODEL = {"errors", "data", "model"}
_ENGINE = {*_MODEL, "diffusion", "training", "metrics", "tasks", "store"}
MAY_IMPORT = {
    "errors": set(),
    "lazy": set(),  # knows nothing, and everybody may import it
    "compiled": set(),
    "data": {"errors"},
    "model": {"errors", "data"},
    "diffusion": _MODEL,
    "training": {*_MODEL, "diffusion", "metrics", "baselines"},
    "annotations": {"errors", "data"},
    "tasks": {*_MODEL, "compiled", "diffusion", "training", "metrics", "annotations"},
    "baselines": {"errors", "data"},
    "evaluation": {*_ENGINE, "engine", "baselines", "engine_reconstruction", "engine_integration"},
    "engine": _ENGINE,
    "store": {"errors", "store_entry"},
    "store_entry": {"errors"},
    "engine_annotation": {*_MODEL, "tasks", "store", "engine"},
    "engine_cells": {"errors", "data", "tasks", "engine"},
    "store_tables": {"store"},
    "engine_knockout_result": {"errors", "tasks"},
    "engine_knockout_tables": {"data", "tasks", "engine", "engine_cells", "engine_knockout_result"},
    "engine_screen": {"errors", "data", "tasks", "store_entry", "store_tables", "engine", "engine_cells"},
    "engine_knockout": {
        *("errors", "data", "tasks", "store", "store_tables", "engine", "engine_cells", "engine_screen"),
        *("engine_knockout_result", "engine_knockout_tables"),
    },
    "engine_grn_result": {"errors", "tasks"},
    "engine_grn_making": {
        *("errors", "data", "model", "tasks", "baselines", "store_tables", "engine", "engine_cells"),
        "engine_grn_result",
    },
    "engine_grn": {
        *("errors", "data", "tasks", "store", "store_tables", "engine", "engine_cells", "engine_grn_result"),
        "engine_grn_making",
    },
    "engine_reconstruction_result": {"errors"},
    "engine_reconstruction_making": {
        *("errors", "data", "tasks", "baselines", "store_tables", "engine", "engine_cells"),
        "engine_reconstruction_result",
    },
    "engine_reconstruction": {
        *("errors", "data", "tasks", "store", "store_tables", "engine", "engine_cells"),
        *("engine_reconstruction_result", "engine_reconstruction_making"),
    },
    "engine_reconstruction_denoising": {
        *("errors", "data", "tasks", "baselines", "engine", "engine_cells", "engine_reconstruction_making"),
    },
    "engine_jobs": {
        *("data", "tasks", "store", "engine", "engine_knockout", "engine_grn", "engine_reconstruction"),
        *("engine_reconstruction_denoising", "engine_integration", "engine_finetune", "errors", "training"),
    },
    "engine_saved": {"errors", "data", "tasks", "store"},
    "engine_integration_result": {"errors", "tasks"},
    "engine_integration_making": {
        *("errors", "data", "model", "tasks", "training", "metrics", "baselines", "store_tables", "engine"),
        *("engine_cells", "engine_integration_result"),
    },
    "engine_integration": {
        *("errors", "data", "tasks", "baselines", "store", "store_tables", "engine", "engine_cells"),
        *("engine_integration_result", "engine_integration_making"),
    },
    "cli_integrate": {"errors", "data", "tasks", "engine", "engine_integration", "cli_progress"},
    "engine_finetune": {"errors", "data", "tasks", "training", "engine", "engine_cells", "engine_integration"},
    "jobs_limits": {"errors"},
    "jobs_memory": {"errors"},
    "jobs_turns": set(),
    "jobs_queue": {"errors", "jobs_limits", "jobs_turns"},
    "jobs_claims": {"jobs_queue"},
    "jobs": {"errors", "jobs_limits", "jobs_memory", "jobs_queue", "jobs_claims"},
    "jobs_worker": {"errors", "jobs_memory", "jobs_queue", "jobs_claims"},
    "figures": {"errors"},
    "report": {"data", "engine", "figures"},
    "metrics": {"compiled"},
    "distributed": {"errors", "data", "model", "tasks", "store_entry", "engine"},
    "cli_embed": {"errors", "data", "tasks", "engine", "distributed", "cli_progress"},
    "cli": {
        *(*_ENGINE, "engine", "cli_annotate", "cli_embed", "cli_evaluate", "cli_finetune", "cli_grn", "cli_knockout"),
        "cli_reconstruct",
        "cli_integrate",
    },
    "cli_progress": set(),
    "cli_annotate": {"errors", "data", "annotations", "tasks", "engine", "engine_annotation", "cli_progress"},
    "cli_knockout": {"errors", "data", "tasks", "engine", "engine_cells", "engine_knockout", "cli_progress"},
    "cli_grn": {"errors", "data", "tasks", "engine", "engine_cells", "engine_grn", "cli_progress"},
    "cli_reconstruct": {
        "data",
        *("errors", "tasks", "engine", "engine_cells", "engine_reconstruction", "engine_reconstruction_denoising"),
        "cli_progress",
    },
    "cli_finetune": {"errors", "engine", "engine_finetune", "training"},
    "cli_evaluate": {"errors", "data", "engine", "evaluation", "training"},
    "__main__": {"cli"},
    "__init__": set(),
}

OURS = {"app", "benchmarks", "pages", "scdiva_core", "tests"}


def tracked_files() -> list[Path]:
    """Every file of the repository: tracked, or new and not ignored."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"needs a git checkout; {ROOT} is none")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    """Python files below the given top-level entries."""
    return [path for path in tracked_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import, wherever it stands; ``from a import b`` gives ``a.b``."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def part_of(dotted: str) -> str:
    """The entry of scdiva_core that a dotted name below it belongs to."""
    return dotted.split(".")[1]


def where(path: Path, line: int | None = None) -> str:
    name = path.relative_to(ROOT).as_posix()
    return f"{name}:{line}" if line else name


def report(lines: list[str]) -> str:
    return "\n" + "\n".join(lines)


def test_every_part_of_the_core_has_a_layer() -> None:
    parts = {part_of(module_name(path)) for path in python_files("scdiva_core")}
    assert parts <= set(MAY_IMPORT), f"no layer yet: {sorted(parts - set(MAY_IMPORT))}"


def test_imports_inside_the_core_point_down() -> None:
    wrong = []
    for path in python_files("scdiva_core"):
        part = part_of(module_name(path))
        allowed = MAY_IMPORT.get(part, set()) | {part, "lazy"}
        for line, name in imported_modules(path):
            if name.startswith("scdiva_core.") and part_of(name) not in allowed:
                wrong.append(f"{where(path, line)} {part} may not import {name}")
    assert not wrong, report(wrong)


def test_the_core_knows_neither_streamlit_nor_the_pages() -> None:
    banned = {"streamlit", "app", "pages", "benchmarks", "tests"}
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in python_files("scdiva_core")
        for line, name in imported_modules(path)
        if name.split(".")[0] in banned
    ]
    assert not wrong, report(wrong)


def test_a_page_imports_no_other_page() -> None:
    wrong = [
        f"{where(path, line)} imports {name}"
        for path in python_files("pages")
        for line, name in imported_modules(path)
        if name.split(".")[0] == "app" or (name.startswith("pages.") and not name.startswith("pages._ui"))
    ]
    assert not wrong, report(wrong)


def test_no_property_has_a_lock_that_all_objects_of_its_class_share() -> None:
    wrong = [
        f"{where(path, line)} imports {name}: use scdiva_core.lazy"
        for folder in ("scdiva_core", "pages")
        for path in python_files(folder)
        for line, name in imported_modules(path)
        if name == "functools.cached_property"
    ]
    assert not wrong, report(wrong)


def public_definitions(path: Path) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Public functions, classes and methods of a module, with their dotted names."""
    waiting: list[tuple[str, ast.stmt]] = [("", node) for node in syntax(path).body]
    while waiting:
        prefix, node = waiting.pop()
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_"):
            continue
        yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            waiting += [(f"{prefix}{node.name}.", child) for child in node.body]


def decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """Last name of each decorator: ``property``, ``setter``, ``overload``."""
    return {ast.unparse(item).split("(")[0].split(".")[-1] for item in node.decorator_list}


def test_everything_public_in_the_core_has_a_docstring() -> None:
    missing = [
        f"{where(path, node.lineno)} {name}"
        for path in python_files("scdiva_core")
        for name, node in public_definitions(path)
        if not ast.get_docstring(node) and not decorators(node) & {"overload", "setter"}
    ]
    missing += [where(path) for path in python_files("scdiva_core") if not ast.get_docstring(syntax(path))]
    assert not missing, report(missing)


def unannotated(node: ast.FunctionDef, is_method: bool) -> list[str]:
    """Names of the arguments without annotation, and ``return`` if that has none."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    if is_method and "staticmethod" not in decorators(node):
        arguments = arguments[1:]
    arguments += [*node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
    names = [argument.arg for argument in arguments if argument.annotation is None]
    return names if node.returns else [*names, "return"]


def test_every_public_function_in_the_core_is_annotated() -> None:
    missing = [
        f"{where(path, node.lineno)} {name}: {', '.join(names)}"
        for path in python_files("scdiva_core")
        for name, node in public_definitions(path)
        if not isinstance(node, ast.ClassDef) and (names := unannotated(node, "." in name))
    ]
    assert not missing, report(missing)


def test_no_python_file_is_longer_than_can_be_read_at_a_sitting() -> None:
    files = [path for path in tracked_files() if path.suffix == ".py"]
    lengths = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = [f"{name}: {length} lines" for name, length in lengths.items() if length > MAX_LINES]
    assert not long, report(long)


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    personal = re.compile(rb"(?<![\w.])/(?:home|Users|root|work)/\w")
    found = [where(path) for path in tracked_files() if personal.search(path.read_bytes())]
    assert not found, report(found)


def readme_tree() -> tuple[set[str], set[str]]:
    """Top-level and scdiva_core entries in the README's file tree; folders end in a slash."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("\n## Files\n", 1)[1].split("```", 2)[1]
    top: set[str] = set()
    core: set[str] = set()
    parent = ""
    for line in filter(None, block.splitlines()):
        name = line.split()[0]
        if not line.startswith(" "):
            parent = name
            top.add(name)
        elif parent == "scdiva_core/":
            core.add(name)
    return top, core


def entries(files: list[PurePosixPath]) -> set[str]:
    """First component of each path, with a slash where more follow."""
    return {path.parts[0] + ("/" if len(path.parts) > 1 else "") for path in files}


def test_the_file_tree_in_the_readme_is_the_repository() -> None:
    files = [PurePosixPath(path.relative_to(ROOT).as_posix()) for path in tracked_files()]
    core = [path.relative_to("scdiva_core") for path in files if path.parts[0] == "scdiva_core"]
    top_listed, core_listed = readme_tree()
    assert sorted(top_listed) == sorted(entries(files))
    assert sorted(core_listed) == sorted(entries(core))


def test_the_pictures_in_the_readme_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []


def test_the_app_stays_on_this_machine_and_reports_to_nobody() -> None:
    config = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))
    assert config["server"]["address"] == "localhost"
    assert config["browser"]["gatherUsageStats"] is False
    assert config["client"]["showErrorDetails"] == "none"
    assert "://" not in repr(config["theme"]), "fonts and themes are local"


def requirements(name: str) -> dict[str, str]:
    """Distribution (normalised) -> version of a requirements file in which every line is pinned."""
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    loose = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==\d+(\.\d+)*", line)]
    assert not loose, f"{name} does not pin: {loose}"
    return {normalised(line.split("==")[0]): line.split("==")[1] for line in pins}


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def third_party(*folders: str) -> dict[str, str]:
    """Packages imported by the given files that are neither ours nor Python's, and one place of each."""
    known = set(sys.stdlib_module_names) | OURS
    return {
        top: where(path, line)
        for path in python_files(*folders)
        for line, name in imported_modules(path)
        if (top := name.split(".")[0]) not in known
    }


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (("app.py", "pages", "scdiva_core"), ("requirements.txt",)),
        (("tests", "benchmarks"), ("requirements.txt", "tests/requirements.txt")),
    ],
)
def test_what_is_imported_is_required_and_pinned(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    pinned = {distribution for name in files for distribution in requirements(name)}
    owners = packages_distributions()
    missing = [
        f"{place} imports {package}"
        for package, place in third_party(*folders).items()
        if not pinned & {normalised(owner) for owner in owners.get(package, [])}
    ]
    assert not missing, report(missing)


def test_tables_are_written_in_one_place() -> None:
    """Names of a file become formulas where a table is written without looking at them."""
    writers = [
        where(path, line)
        for path in python_files("app.py", "pages", "scdiva_core", "benchmarks")
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ".to_csv(" in text and path.name != "spreadsheet.py"
    ]
    assert not writers, report(writers)
