"""What is done to the structure of a sound ``.h5ad`` file to make it hostile, through h5py."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

Change = Callable[[h5py.File, np.random.Generator, Path], object]

HOSTILE_TEXTS = (
    "<img src=x onerror=alert(1)>",
    "=cmd|'/C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "a\x00b",
    "\u202egnp.exe",
    "\x1b[31mred",
    "$x$ :smile: [a](javascript:alert(1))",
    "../../etc/passwd",
    "",
    " ",
    "n" * 5000,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin1"),
)
_USED = (
    *("X", "X/data", "X/indices", "X/indptr", "raw/X/data", "raw/X/indptr", "raw/X/indices", "layers/counts/data"),
    *("obs/score", "obs/note", "obs/good", "obs/cell_type/codes", "obs/cell_type/categories", "var/symbol"),
    *("obsm/X_umap", "obs/{index}", "var/{index}", "raw/var/{index}"),
)
_GROUPS = ("X", "obs", "var", "obs/cell_type", "raw", "raw/X", "layers", "layers/counts", "obsm", "uns", "raw/var")
_NUMBERS = (0, 1, -1, np.nan, np.inf, -np.inf, 1e300, 2**31, 2**31 - 1, 2**53, -(2**63), 0.5)
_TYPES = ("f2", ">f4", "f8", "i1", ">i8", "u8", "?", "S3", "c8", "O")
_ATTRIBUTES = ("encoding-type", "encoding-version", "shape", "_index", "column-order", "ordered")


def _dataset(file: h5py.File, rng: np.random.Generator) -> str:
    """Name of a data set that is read."""
    index = "_index"
    for table in ("obs", "var", "raw/var"):
        if table in file and isinstance(file[table].attrs.get("_index"), str):
            index = file[table].attrs["_index"]
    names = [name.format(index=index) for name in _USED]
    there = [name for name in names if name in file and isinstance(file[name], h5py.Dataset)]
    return there[int(rng.integers(len(there)))]


def _group(file: h5py.File, rng: np.random.Generator) -> str:
    there = [name for name in _GROUPS if name in file]
    return there[int(rng.integers(len(there)))]


def _anything(file: h5py.File, rng: np.random.Generator) -> str:
    return _dataset(file, rng) if rng.random() < 0.6 else _group(file, rng)


def _put(file: h5py.File, name: str, values: object, **options: object) -> None:
    """Put other values where something was, keeping its attributes."""
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=values, **options).attrs.update(attributes)


def values(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Write strange numbers or texts into a data set."""
    name = _dataset(file, rng)
    content = file[name][()]
    for place in rng.integers(0, content.size, rng.integers(1, 5)):
        if content.dtype.kind == "O":
            content.flat[place] = HOSTILE_TEXTS[int(rng.integers(len(HOSTILE_TEXTS) - 1))].replace("\x00", "")
        else:
            with np.errstate(all="ignore"):
                number = np.float64(_NUMBERS[int(rng.integers(len(_NUMBERS)))])
                content.flat[place] = number.astype(content.dtype)
    _put(file, name, content)


def another_type(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Store the same values in another type."""
    name, kind = _dataset(file, rng), _TYPES[int(rng.integers(len(_TYPES)))]
    content = file[name][()]
    if kind == "O" or content.dtype.kind == "O":
        texts = np.array([str(value) for value in content.ravel()], dtype=object).reshape(content.shape)
        if kind == "S3":
            _put(file, name, texts.astype("S3"))
        else:
            _put(file, name, np.arange(content.size).reshape(content.shape) if kind != "O" else texts)
        return
    with np.errstate(all="ignore"):
        _put(file, name, content.astype(kind))


def another_shape(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Cut, double, empty, turn, shuffle or flatten a data set."""
    name = _dataset(file, rng)
    content = file[name][()]
    changes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda old: old[:0],
        lambda old: old[:1],
        lambda old: old[:-1],
        lambda old: np.concatenate([old, old]),
        lambda old: old[::-1],
        lambda old: rng.permutation(old),
        lambda old: old.reshape(-1, 1),
        lambda old: old.ravel(),
        lambda old: old.ravel()[0],
        lambda old: np.broadcast_to(old.ravel()[:1], old.shape).copy(),
    )
    _put(file, name, changes[int(rng.integers(len(changes)))](content))


def strange_type(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Put a type there that anndata never writes."""
    name = _dataset(file, rng)
    n, kind = len(file[name]) if file[name].shape else 1, int(rng.integers(7))
    made: tuple[Callable[[], dict[str, object]], ...] = (
        lambda: {"data": np.zeros(n, "i4,f4")},
        lambda: {"data": np.full(n, file.ref, dtype=h5py.ref_dtype), "dtype": h5py.ref_dtype},
        lambda: {"shape": (n,), "dtype": h5py.vlen_dtype(np.int32)},
        lambda: {"data": np.zeros(n, "i1"), "dtype": h5py.enum_dtype({"A": 0, "B": 1}, basetype="i1")},
        lambda: {"data": np.zeros(n, "V7")},
        lambda: {"data": h5py.Empty("f4")},
        lambda: {"shape": (n,), "dtype": np.dtype(("f4", (3,)))},
    )
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, **made[kind]()).attrs.update(attributes)


def drop(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Leave something out."""
    del file[_anything(file, rng)]


def swap(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Put a group where a data set was, a data set where a group was, or a type."""
    name = _anything(file, rng)
    del file[name]
    match int(rng.integers(3)):
        case 0:
            file.create_group(name)
        case 1:
            file[name] = np.arange(5)
        case _:
            file[name] = np.dtype("f4")


def link(file: h5py.File, rng: np.random.Generator, outside: Path) -> None:
    """Put a link there: to another file, to itself, in a circle, to nowhere, or back to the root."""
    name = _anything(file, rng)
    del file[name]
    match int(rng.integers(6)):
        case 0:
            file[name] = h5py.ExternalLink(str(outside), "/X")
        case 1:
            file[name] = h5py.ExternalLink(f"../{outside.parent.name}/{outside.name}", "/")
        case 2:
            file[name] = h5py.SoftLink(f"/{name}")
        case 3:
            file["uns/a"], file["uns/b"] = h5py.SoftLink("/uns/b"), h5py.SoftLink("/uns/a")
            file[name] = h5py.SoftLink("/uns/a")
        case 4:
            file[name] = h5py.SoftLink("/nowhere")
        case _:
            file[name] = file["/"]


def external(file: h5py.File, rng: np.random.Generator, outside: Path) -> None:
    """Keep the values in another file."""
    name = _dataset(file, rng)
    shape, kind = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape=shape, dtype=kind if kind.kind in "fiu" else "S1", external=str(outside))


def virtual(file: h5py.File, rng: np.random.Generator, outside: Path) -> None:
    """Take the values from other files: a fixed one, one that may grow, or a numbered series."""
    name = _dataset(file, rng)
    shape, kind = file[name].shape, file[name].dtype
    kind = kind if kind.kind in "fiu" else np.dtype("f4")
    del file[name]
    if rng.random() < 0.4:
        layout = h5py.VirtualLayout(shape, kind)
        layout[:] = h5py.VirtualSource(str(outside), "X", shape)
        file.create_virtual_dataset(name, layout, fillvalue=1)
        return
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    unlimited = (h5py.h5s.UNLIMITED, *shape[1:])
    whole, part = h5py.h5s.create_simple(shape, unlimited), h5py.h5s.create_simple(shape, unlimited)
    zero, one = (0,) * len(shape), (1,) * len(shape)
    whole.select_hyperslab(zero, (h5py.h5s.UNLIMITED, *one[1:]), one, (1, *shape[1:]))
    series = rng.random() < 0.5
    if not series:
        part.select_hyperslab(zero, (h5py.h5s.UNLIMITED, *one[1:]), one, (1, *shape[1:]))
    else:
        part = h5py.h5s.create_simple((1, *shape[1:]))
    source = f"{outside.with_suffix('')}%b{outside.suffix}" if series else str(outside)
    properties.set_virtual(whole, source.encode(), b"X", part)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(kind), whole, properties)


def bomb(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Declare what is not there, or fill much memory from few bytes."""
    name = _dataset(file, rng)
    old = file[name]
    attributes, kind = dict(old.attrs), old.dtype if old.dtype.kind in "fiu" else h5py.string_dtype()
    del file[name]
    match int(rng.integers(5)):
        case 0:
            made = file.create_dataset(name, shape=(2**40,), chunks=(2**20,), dtype=kind)
        case 1:
            made = file.create_dataset(name, shape=(2**31, 2**31), chunks=(1024, 1024), dtype="f8")
        case 2:  # one piece of much more than the values in it
            made = file.create_dataset(name, shape=(40,), maxshape=(None,), chunks=(2**26,), dtype="i1", compression=1)
            made[:] = 0
        case 3:
            made = file.create_dataset(name, shape=(10**7,), chunks=(10**6,), dtype="i1", compression=9)
            made[:] = 0
        case _:
            made = file.create_dataset(name, shape=(10**6,), chunks=(10**6,), dtype="S8", compression=9)
            made[:] = b"a"
    made.attrs.update(attributes)


def text_bomb(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Let every reference of a column lead to the same long text."""
    name = _dataset(file, rng)
    n = max(len(file[name]), 40) * int(rng.choice([1, 10, 100]))
    attributes, compression = dict(file[name].attrs), [None, "gzip", "lzf"][int(rng.integers(3))]
    del file[name]
    made = file.create_dataset(name, shape=(n,), chunks=(n,), dtype=h5py.string_dtype(), compression=compression)
    made[0] = "a" * 1_000_000
    made.attrs.update(attributes)
    file.flush()
    repeat_reference(made)


def repeat_reference(dataset: h5py.Dataset) -> None:
    """Copy the first reference of a data set of one chunk to all others."""
    place = (0,) * dataset.ndim
    _, stored = dataset.id.read_direct_chunk(place)
    if dataset.compression == "gzip":
        repeated = zlib.compress(zlib.decompress(stored)[:16] * len(dataset))
    elif dataset.compression == "lzf":
        # A literal of 16 bytes, then copies of what came 16 bytes before, as LZF writes them.
        left, out = 16 * (len(dataset) - 1), bytearray([15]) + _first_reference(dataset)
        while left:
            length = min(left, 264)
            if left - length in (1, 2):
                length -= 3
            out += bytes([7 << 5, length - 9, 15]) if length > 8 else bytes([(length - 2) << 5, 15])
            left -= length
        repeated = bytes(out)
    else:
        repeated = stored[:16] * len(dataset)
    dataset.id.write_direct_chunk(place, repeated)


def _first_reference(dataset: h5py.Dataset) -> bytes:
    """Read the raw reference through a twin without compression."""
    twin = dataset.parent.create_dataset("twin", shape=(1,), chunks=(1,), dtype=dataset.dtype)
    twin[0] = dataset[0]
    dataset.file.flush()
    _, stored = twin.id.read_direct_chunk((0,))
    return stored[:16]


def attribute(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Change, drop or blow up an attribute."""
    node, name = file[_anything(file, rng)], _ATTRIBUTES[int(rng.integers(len(_ATTRIBUTES)))]
    strange = (
        *(3, 2.5, -1, np.nan, True, "hello", "../X", "", "csr_matrix", "csc_matrix", "categorical", "dataframe"),
        *("nullable-integer", "nullable-string-array", "array", "string-array", "\u202e", "/", ".", "a/b"),
        *([0, 0], [1, 300], [40, 1], [-40, 300], [2**40, 300], [40, 300, 1], [40.0, 300.0], np.zeros(0, "i8")),
        *(np.bytes_(b"\xff\xfe"), h5py.Empty("f4"), np.zeros(3, "i4,f4"), [1, 2, 3], ["score"] * 50, 2**64 - 1),
        *(list(HOSTILE_TEXTS[:7]), np.zeros(8000, "f8"), "x" * 60_000),
    )
    choice = int(rng.integers(len(strange) + 1))
    if choice == len(strange):
        del node.attrs[name]
    else:
        node.attrs[name] = strange[choice]


def huge_attribute(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Hang an attribute of megabytes on something, as the newer file layout allows."""
    node = file[_anything(file, rng)]
    node.attrs.create("column-order", np.array(["note"] * 30_000, dtype=object), dtype=h5py.string_dtype())


def many_columns(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Add thousands of columns, layers or embeddings."""
    group = file[["obs", "var", "layers", "obsm"][int(rng.integers(4))]]
    column = file["obs/score"]
    for i in range(int(rng.choice([20, 20, 2500]))):
        group[f"column {i}"] = column


def hostile_names(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Name columns, layers and embeddings as an attacker would."""
    for place in ("obs", "var", "layers", "obsm"):
        if place in file:
            group = file[place]  # its id lives as long as it
            for text in HOSTILE_TEXTS:
                name = text.encode().replace(b"\x00", b"").replace(b"/", b"")
                if name and rng.random() < 0.7 and not group.id.links.exists(name):
                    h5py.h5o.link(file["obs/score"].id, group.id, name)
    h5py.h5o.link(file["obs/score"].id, file["obs"].id, b"\xff\xfe")


def hostile_texts(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Fill a column of text with what an attacker would write."""
    name = _dataset(file, rng)
    n = len(file[name])
    if rng.random() < 0.3:
        _put(file, name, np.array([HOSTILE_TEXTS[i % 16].encode()[:40] for i in range(n)], dtype="S40"))
    else:
        _put(file, name, [HOSTILE_TEXTS[i % 16].replace("\x00", "") for i in range(n)])


def few(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Keep no cell, one cell, no gene or one gene, with parts that agree."""
    cells, genes = [(0, 300), (1, 300), (40, 0), (40, 1), (0, 0), (1, 1)][int(rng.integers(6))]
    for table, rows in (("obs", cells), ("var", genes)):
        for name in list(file[table]):
            node = file[f"{table}/{name}"]
            target = f"{table}/{name}" if isinstance(node, h5py.Dataset) else f"{table}/{name}/codes"
            if isinstance(file.get(target), h5py.Dataset):
                _put(file, target, file[target][:rows])
    if isinstance(file["X"], h5py.Dataset):
        _put(file, "X", file["X"][:cells, :genes])
        return
    major = cells if file["X"].attrs["encoding-type"] == "csr_matrix" else genes
    stop = int(file["X/indptr"][major])
    stop = stop if 300 in (cells, genes) or 40 in (cells, genes) else min(stop, 1)
    indptr = np.minimum(file["X/indptr"][: major + 1], stop)
    minor = max(genes if major == cells else cells, 1)
    _put(file, "X/data", file["X/data"][:stop])
    _put(file, "X/indices", file["X/indices"][:stop] % minor)
    _put(file, "X/indptr", indptr)
    file["X"].attrs["shape"] = [cells, genes]


def filters(file: h5py.File, rng: np.random.Generator, _: Path) -> None:
    """Store a data set with rare filters, with one that is not there, or mark pieces as not filtered."""
    name = _dataset(file, rng)
    content, kind = file[name][()], int(rng.integers(5))
    match kind:
        case 0:
            _put(file, name, content, chunks=True, fletcher32=True, shuffle=True, compression="lzf")
        case 1:
            _put(file, name, content, chunks=True, scaleoffset=2)
        case 2:
            _put(file, name, content, chunks=(1,) * content.ndim, compression="gzip")
        case 3:
            _put(file, name, content, chunks=True, compression="gzip")
            dataset = file[name]
            mask = int(rng.choice([1, 0xFFFFFFFF]))
            dataset.id.write_direct_chunk((0,) * content.ndim, rng.bytes(int(rng.integers(1, 5000))), mask)
        case _:
            _put(file, name, content, chunks=True, compression="gzip")
            dataset = file[name]
            dataset.id.write_direct_chunk((0,) * content.ndim, rng.bytes(int(rng.integers(1, 5000))))


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        *(values, another_type, another_shape, strange_type, drop, swap, link, external, virtual, bomb, text_bomb),
        *(attribute, huge_attribute, many_columns, hostile_names, hostile_texts, few, filters),
    )
}
BOMBS = {"bomb", "text_bomb"}
