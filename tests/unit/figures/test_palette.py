"""Colours of categories can be told apart, on both backgrounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from scdiva_core.figures.palette import MAX_CATEGORIES, category_style, theme

# Björn Ottosson's Oklab (2020), written down here independently of how the palette was made.
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Machado, Oliveira and Fernandes (2009), severity 1.
_DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    return _TO_LAB @ np.cbrt(_TO_LMS @ np.clip(rgb, 0, 1))


def contrast(first: str, second: str) -> float:
    luminance = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (first, second))
    return (luminance[1] + 0.05) / (luminance[0] + 0.05)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("view", [np.eye(3), _DEUTERANOPIA])
def test_any_two_of_24_colours_differ(dark: bool, view: np.ndarray) -> None:
    points = [oklab(view @ linear(category_style(index, dark=dark)[0])) for index in range(24)]
    distances = [np.linalg.norm(one - other) for one, other in itertools.combinations(points, 2)]
    assert min(distances) > 0.045


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_off_the_background(dark: bool) -> None:
    background = theme(dark=dark).background
    assert all(contrast(category_style(index, dark=dark)[0], background) > 2.1 for index in range(24))


def test_no_two_categories_look_the_same_until_the_limit() -> None:
    styles = {category_style(index) for index in range(MAX_CATEGORIES)}
    assert len(styles) == MAX_CATEGORIES == 72
