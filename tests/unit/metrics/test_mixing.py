"""Neighbourhoods whose answer can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scdiva_core.metrics.integration import neighbor_graph
from scdiva_core.metrics.mixing import batch_only, clisi, clusters_of, ilisi, kbet, lisi

RNG = np.random.default_rng(0)


def test_lisi_of_cells_that_are_all_as_far_apart() -> None:
    # Corners of a simplex: each cell's three neighbours count alike. One is of its own batch, two of the other one:
    # 1 / ((1/3)^2 + (2/3)^2) = 9/5.
    X, batches = np.eye(4), list("xxyy")
    assert lisi(X, batches) == pytest.approx([1.8] * 4)
    assert ilisi(X, batches) == pytest.approx(0.8)
    assert clisi(X, batches) == pytest.approx(0.2)


def test_lisi_weighs_near_neighbours_more() -> None:
    # On a line; the perplexity of three neighbours is 1: the nearest alone counts.
    X = np.array([[0.0], [1.0], [9.0], [30.0]])
    assert lisi(X, list("xxyy"))[0] == pytest.approx(1.0, abs=1e-3)
    assert lisi(X, list("xyxx"))[0] == pytest.approx(1.0, abs=1e-3)


def test_lisi_of_types_that_lie_apart_and_of_batches_that_mix() -> None:
    types = np.repeat(["a", "b"], 100)
    X, batches = np.where(types == "a", 0, 50)[:, None] + RNG.normal(size=(200, 2)), np.tile(["x", "y"], 100)
    assert clisi(X, types) == pytest.approx(1.0, abs=1e-6)
    assert ilisi(X, types) == pytest.approx(0.0, abs=1e-6)
    assert ilisi(X, batches) > 0.9
    assert clisi(X, batches) < 0.1


def test_kbet_worked_out_by_hand() -> None:
    # 24 cells of one type, 12 a batch, so 10 neighbours. Each batch is a point of its own, 11 others on it: all 10 are
    # of the own batch where 5 are expected, chi-squared 10, p = 0.0016.
    X, labels, batches = np.repeat([[0.0], [9.0]], 12, axis=0), ["a"] * 24, ["x"] * 12 + ["y"] * 12
    assert kbet(X, labels, batches) == 0.0
    # A simplex with one cell more a batch: of 10 neighbours of 23 none can be told from the rest; chi-squared stays
    # below 3.84 up to 8 of one batch, and ties are broken by place, so only a mixed order is asked for.
    mixed = np.tile(["x", "y"], 12)
    assert kbet(np.arange(24.0)[:, None], labels, mixed) == 1.0


def test_kbet_takes_each_type_alike_and_leaves_out_what_cannot_be_tested() -> None:
    X = np.concatenate([np.repeat([[0.0], [9.0]], 12, axis=0), 100 + np.arange(24.0)[:, None], [[200.0]] * 30])
    labels = ["apart"] * 24 + ["mixed"] * 24 + ["alone"] * 30
    batches = ["x"] * 12 + ["y"] * 12 + ["x", "y"] * 12 + ["x"] * 30
    assert kbet(X, labels, batches) == 0.5
    assert math.isnan(kbet(X[-30:], labels[-30:], batches[-30:]))


def test_a_type_of_one_batch_keeps_its_own_cluster_or_not() -> None:
    # Type c: 12 cells of batch x alone, 9 in a cluster of their own, 3 among 9 others: (9 * 1 + 3 * 3/12) / 12.
    labels = ["c"] * 12 + ["a"] * 20 + ["d"] * 5
    batches = ["x"] * 12 + ["x", "y"] * 10 + ["y"] * 5
    clusters = [0] * 9 + [1] * 3 + [1] * 9 + [2] * 11 + [3] * 5
    (found,) = batch_only(clusters, labels, batches)
    assert (found.label, found.batch, found.n_cells) == ("c", "x", 12), "d is too small, a in both"
    assert found.purity == pytest.approx((9 + 3 * 3 / 12) / 12)


def test_clusters_are_numbered_from_0() -> None:
    X = np.repeat(np.eye(3) * 30, 30, axis=0) + RNG.normal(size=(90, 3))
    clusters = clusters_of(neighbor_graph(X), 0.3)
    assert sorted(set(clusters)) == [0, 1, 2]
    assert len({tuple(clusters[start : start + 30]) for start in (0, 30, 60)}) == 3
