"""What is unlike the reference: by hand on a circle, and with a type of blood cells taken out of the reference."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest
from sklearn.decomposition import PCA

from scdiva_core.errors import CheckpointError, DataError
from scdiva_core.model.reference import Reference
from scdiva_core.tasks import novelty as module
from scdiva_core.tasks.neighbors import nearest_cells
from scdiva_core.tasks.novelty import novelty, strangeness

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
ALONE = np.empty((1, 0), np.int64)


def reference(latents: np.ndarray, labels: np.ndarray) -> Reference:
    labels = np.asarray(labels, np.int16)
    names = tuple(f"CL:{label}" for label in range(int(labels.max()) + 1))
    return Reference(np.asarray(latents, np.float32), labels, names, names, ("one",), 0 * labels, "0" * 64)


def at(*degrees: float) -> np.ndarray:
    """Points on the unit circle, where cosine distance is that of the angle."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)


def apart(degrees: float) -> float:
    return 1 - float(np.cos(np.radians(degrees)))


# Two types opposite to each other, so that the middle of their centres is the origin: cells 10 degrees off theirs.
OPPOSITE = reference(at(-10, 10, -10, 10, 170, 190, 170, 190), np.repeat([0, 1], 4))


@pytest.mark.parametrize("degrees", [0, 10, 30, 60, 90])
def test_strangeness_is_distance_in_radii_times_the_ratio_to_the_next_type(degrees: float) -> None:
    found = strangeness(OPPOSITE, 3 * at(degrees), ALONE)
    expected = apart(degrees) / apart(10) * apart(degrees) / apart(180 - degrees)
    assert found == pytest.approx([expected], rel=1e-4, abs=1e-4)
    assert found.dtype == np.float32


def test_strangeness_is_the_mean_over_a_cell_and_its_neighbours() -> None:
    cells = at(0, 90, 40)
    own = np.array([strangeness(OPPOSITE, cells[[i]], ALONE)[0] for i in range(3)])
    neighbors = np.array([[1, 2], [2, 0], [0, 1]])
    assert strangeness(OPPOSITE, cells, neighbors) == pytest.approx([own.mean()] * 3, rel=1e-5)
    assert strangeness(OPPOSITE, cells, neighbors[:, :1])[0] == pytest.approx((own[0] + own[1]) / 2, rel=1e-5)


def test_a_type_of_cells_all_alike_does_not_make_everything_strange() -> None:
    """A radius of 0 would: the narrowest is a quarter of that of the median type."""
    alike = np.cos(np.radians(10)) * at(180, 180, 180, 180)  # the middle stays the origin
    wide = np.concatenate([at(-10, 10, -10, 10), alike])
    found = strangeness(reference(wide, np.repeat([0, 1], 4)), at(180 - 5), ALONE)
    radius = 0.25 * (apart(10) / 2)
    assert found == pytest.approx([apart(5) / radius * apart(5) / apart(175)], rel=1e-3)


def test_one_type_alone_has_no_next_one() -> None:
    found = strangeness(reference(at(-10, 10), np.zeros(2)), at(0, 180), np.empty((2, 0), int))
    assert np.isfinite(found).all()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, neighbors = at(*range(0, 200, 5)), np.roll(np.arange(40), 1)[:, None]
    whole = strangeness(OPPOSITE, cells, neighbors)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(strangeness(OPPOSITE, cells, neighbors), whole, rtol=1e-6)


def test_latents_of_another_width_are_refused() -> None:
    with pytest.raises(CheckpointError, match="The reference has 2 coordinates, these cells 3"):
        strangeness(OPPOSITE, np.zeros((5, 3), np.float32), np.empty((5, 0), int))


def test_the_bound_follows_a_batch_that_is_off_as_a_whole() -> None:
    strange = np.array([0.1, 0.1, 0.1, 1.8, 2, 2, 2, 6], np.float32)
    assert novelty(strange) == pytest.approx(strange / 0.9), "the lower quartile is that of the first batch"
    batches = ["near"] * 4 + ["far"] * 4
    assert novelty(strange, batches) == pytest.approx([0.1 / 0.9] * 3 + [2.0] + [2 / 5] * 3 + [6 / 5])
    lost = [*batches[:7], None]
    assert novelty(strange, lost)[7] == pytest.approx(1 / 2.5), "without a batch it is compared with itself"
    assert len(novelty(strange[:0])) == 0
    with pytest.raises(DataError, match="3 cells have a batch, but 8 are compared"):
        novelty(strange, batches[:3])


PBMC = {"B": "B", "CD14 Monocytes": "mono", "FCGR3A Monocytes": "mono", "NK": "NK", "CD8 T": "T", "CD4 T": "T"}


@pytest.fixture(scope="module")
def components() -> tuple[np.ndarray, np.ndarray]:
    """Twenty principal components of 1,300 blood cells, and their types."""
    cells = anndata.read_h5ad(DEMO / "tenx_pbmc3k.h5ad")[:1400]
    types = cells.obs["cell_type"].astype(str).map(PBMC).fillna("").to_numpy(str)
    counts = cells.X[types != ""].toarray().astype(np.float32)
    log1p = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    variable = np.argsort(-log1p.var(axis=0), kind="stable")[:500]
    return PCA(20, random_state=0).fit_transform(log1p[:, variable]).astype(np.float32), types[types != ""]


@pytest.mark.parametrize("removed", ["B", "mono", "T"])
def test_a_type_that_the_reference_lacks_is_unlike_it(components: tuple, removed: str) -> None:
    vectors, types = components
    labels = np.unique(types, return_inverse=True)[1]
    known = (np.arange(len(types)) % 2 == 0) & (types != removed)
    asked = np.arange(len(types)) % 2 == 1
    made = reference(vectors[known], np.unique(labels[known], return_inverse=True)[1])
    strange = strangeness(made, vectors[asked], nearest_cells(vectors[asked]))
    gone = types[asked] == removed
    bound = np.quantile(strange[~gone], 0.9)
    assert (strange[gone] > bound).mean() >= 0.7
