"""Masks and numbers as text: read back as they were, refused when damaged."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiva_core.data.packing import pack_bytes, pack_mask, unpack_bytes, unpack_mask


@given(bits=st.lists(st.booleans()))
def test_a_mask_is_read_back_as_it_was(bits: list[bool]) -> None:
    mask = np.array(bits, bool)
    found = unpack_mask(pack_mask(mask), len(bits))
    assert found.dtype == bool
    assert found.tolist() == bits


def test_a_mask_of_many_cells_is_short_text() -> None:
    mask = np.zeros(100_000, bool)
    mask[500:900] = True
    assert len(pack_mask(mask)) < 200
    assert pack_mask(mask).isascii()


@given(content=st.binary())
def test_bytes_are_read_back_as_they_were(content: bytes) -> None:
    assert unpack_bytes(pack_bytes(content), len(content)) == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        base64.b64encode(b"not zlib").decode(),
        base64.b64encode(zlib.compress(b"abcd")[:-5]).decode(),
        pack_bytes(b"abc"),
        pack_bytes(bytes(10**7)),
        7,
        None,
    ],
)
def test_damaged_text_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"packed bytes|instead of 4|[Bb]ase64|padding"):
        unpack_bytes(text, 4)
