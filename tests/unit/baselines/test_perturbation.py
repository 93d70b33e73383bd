"""Baselines of predicted perturbations on numbers small enough to work out, and on real cells."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scdiva_core.baselines.perturbation import (
    BASELINES,
    MeasuredPerturbations,
    additive,
    co_expression,
    mean_change,
    no_change,
    random_change,
    ridge_on_pca,
)
from scdiva_core.errors import DataError

SYMBOLS = ("A", "B", "C", "D")
CONTROL = np.array([[1.0, 2, 0, 1], [2, 4, 0, 1], [3, 6, 0, 0], [2, 4, 0, 2]])
DELTAS = np.array([[-2.0, 1, 0, 0], [0, -3, 1, 0], [-1.0, -2, 2, 1]])


def measured(**changes: object) -> MeasuredPerturbations:
    given = {
        "symbols": SYMBOLS,
        "control": sp.csr_matrix(CONTROL),
        "perturbations": (("A",), ("B",), ("A", "B")),
        "deltas": DELTAS,
        "kind": "knockout",
    }
    return MeasuredPerturbations(**(given | changes))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_the_same_interface(name: str) -> None:
    for perturbation in (("A",), ("C", "D"), ("not measured",)):
        delta = BASELINES[name](measured(), perturbation)
        assert delta.shape == (4,)
        assert delta.dtype == np.float64
        assert np.isfinite(delta).all()


def test_no_change_and_mean() -> None:
    assert no_change(measured(), ("A",)).tolist() == [0, 0, 0, 0]
    assert mean_change(measured(), ("D",)) == pytest.approx([-1, -4 / 3, 1, 1 / 3])


def test_singles_add_up() -> None:
    assert additive(measured(), ("A", "B")).tolist() == [-2, -2, 1, 0], "and not the double's own delta"
    # D was not perturbed alone: the mean of the two singles stands for it.
    assert additive(measured(), ("A", "D")) == pytest.approx([-3, 0, 0.5, 0])
    assert additive(measured(), ("D",)) == pytest.approx([-1, -1, 0.5, 0])
    doubles = measured(perturbations=(("A", "B"),), deltas=DELTAS[2:])
    assert additive(doubles, ("A",)).tolist() == [-1, -2, 2, 1]


def test_co_expression_follows_the_regression_on_the_target() -> None:
    # Means 2, 4, 0 and 1; covariances with A are 0.5, 1, 0 and -0.25, its variance is 0.5.
    assert co_expression(measured(), ("A",)) == pytest.approx([-2, -4, 0, 1])
    assert co_expression(measured(kind="activation"), ("A",)) == pytest.approx([1, 2, 0, -0.5])
    assert co_expression(measured(), ("C",)).tolist() == [0, 0, 0, 0], "a gene that no cell expresses"
    both = co_expression(measured(), ("A", "D"))
    assert both == pytest.approx(co_expression(measured(), ("A",)) + co_expression(measured(), ("D",)))
    assert co_expression(measured(perturbations=(), deltas=np.empty((0, 4))), ("A",)) == pytest.approx([-2, -4, 0, 1])


def test_the_linear_model_solves_its_own_equation() -> None:
    rng = np.random.default_rng(0)
    symbols = tuple(f"G{number}" for number in range(30))
    deltas = rng.normal(size=(8, 30))
    train = measured(
        symbols=symbols,
        control=sp.csr_matrix(rng.gamma(1, size=(20, 30))),
        perturbations=tuple((symbol,) for symbol in symbols[:8]),
        deltas=deltas,
    )
    # An independent way: least squares over W written out as one long vector, penalty by penalty.
    conditions = np.vstack([train.control_mean, train.control_mean + deltas]).T
    u, s, _ = np.linalg.svd(conditions - conditions.mean(axis=0), full_matrices=False)
    genes, targets = u * s, (u * s)[:8]
    k = genes.shape[1]
    design = np.kron(genes.T @ genes + 0.1 * np.eye(k), targets.T @ targets + 0.1 * np.eye(k))
    centred = (deltas - deltas.mean(axis=0)).T
    weights = np.linalg.solve(design, (genes.T @ centred @ targets).ravel()).reshape(k, k)
    expected = genes @ weights @ genes[12] + deltas.mean(axis=0)
    assert ridge_on_pca(train, ("G12",)) == pytest.approx(expected, abs=1e-8)
    assert ridge_on_pca(train, ("absent",)) == pytest.approx(deltas.mean(axis=0))


def test_the_linear_model_learns_that_like_genes_act_alike() -> None:
    rng = np.random.default_rng(1)
    module = np.arange(40) // 20  # two modules of genes; perturbing a gene lowers its own module
    deltas = np.stack([np.where(module == module[gene], -1.0, 0.5) for gene in range(0, 40, 4)])
    train = measured(
        symbols=tuple(map(str, range(40))),
        control=sp.csr_matrix(rng.gamma(2, size=(50, 40))),
        perturbations=tuple((str(gene),) for gene in range(0, 40, 4)),
        deltas=deltas + rng.normal(scale=0.05, size=deltas.shape),
    )
    unseen = ridge_on_pca(train, ("1",))
    assert np.corrcoef(unseen, module == 1)[0, 1] > 0.9
    assert np.corrcoef(ridge_on_pca(train, ("38",)), module == 0)[0, 1] > 0.9


def test_random_is_a_shuffled_delta_and_the_same_again() -> None:
    found = random_change(measured(), ("A",))
    assert sorted(found.tolist()) in [sorted(row) for row in DELTAS.tolist()]
    assert found.tolist() == random_change(measured(), ("A",)).tolist()
    alone = measured(perturbations=(), deltas=np.empty((0, 4)))
    assert len({tuple(random_change(alone, (gene,))) for gene in SYMBOLS}) == 4


@pytest.mark.parametrize("name", ["mean", "additive", "ridge_pca"])
def test_what_learns_from_others_needs_others(name: str) -> None:
    with pytest.raises(DataError, match="learns from other perturbations, but there are none. Choose a file"):
        BASELINES[name](measured(perturbations=(), deltas=np.empty((0, 4))), ("A",))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 perturbations of 4 genes, but deltas \[2, 4\] and control cells \[4, 4\]"):
        measured(deltas=DELTAS[:2])
    with pytest.raises(DataError, match="There is no control cell. Name the value"):
        measured(control=sp.csr_matrix((0, 4)))


def test_co_expression_on_real_cells_is_numpys_correlation(small_cells: anndata.AnnData) -> None:
    control = sp.csr_matrix(np.log1p(small_cells.X.toarray()[:, :80]))
    train = MeasuredPerturbations(tuple(small_cells.var_names[:80]), control, (), np.empty((0, 80)), "activation")
    dense = control.toarray().astype(np.float64)
    target = int(dense.mean(axis=0).argmax())
    correlation = np.corrcoef(dense.T)[target]
    expected = np.nan_to_num(correlation * dense.std(axis=0) / dense[:, target].std())
    np.testing.assert_allclose(co_expression(train, (train.symbols[target],)), expected, atol=1e-5)
