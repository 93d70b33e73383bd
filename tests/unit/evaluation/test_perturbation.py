"""Zero-shot knockouts on a small made-up screen of real cells, and what their scores come to in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdiva_core.baselines.perturbation import MeasuredPerturbations, co_expression, mean_change
from scdiva_core.data.h5ad import open_h5ad
from scdiva_core.data.tokenizer import Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.errors import Cancelled, DataError
from scdiva_core.evaluation.perturbation import INTERFERON_GENES, interferon_response, measured_knockouts
from scdiva_core.evaluation.perturbation_scores import MEASURES, METHODS, ZeroShot
from scdiva_core.metrics.perturbation import score_delta
from scdiva_core.model.checkpoint import load_pretrained
from scdiva_core.model.network import ScDiVaModel

DEMO = Path(__file__).resolve().parents[3] / "assets" / "demo"
SPECIAL = ("<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>")


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ScDiVaModel:
    return load_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def screen(small_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 cells by 50 genes: 60 control cells, four knockouts of 20 cells, one of a gene that no control cell has, and
    one of a gene that is not there."""
    detected = np.asarray((small_cells.X > 0).sum(axis=0)).ravel()
    genes = np.flatnonzero((detected > 50) & (detected < 110))[:50]
    cells = small_cells[:, genes].copy()
    counts = cells.X.toarray()
    names = cells.var_names
    labels = np.repeat(["control", *names[:5], "ABSENT"], [50, 20, 20, 20, 20, 10, 20])
    for number, name in enumerate(names[:5]):
        rows = np.flatnonzero(labels == name)
        for row in rows:
            counts[row, number] = 0
            counts[row, 10 + number] = 30  # each knockout raises one gene of its own
    for row in np.flatnonzero(labels == "control"):
        counts[row, 4] = 0
    cells.X = sp.csr_matrix(counts)
    cells.obs["target"], cells.obs["plate"] = labels, np.array(["p1", "p2"])[np.arange(160) % 2]
    path = tmp_path_factory.mktemp("screen") / "screen.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def found(model: ScDiVaModel, screen: Path) -> ZeroShot:
    with open_h5ad(screen, model.vocabulary) as dataset:
        return measured_knockouts(
            model, model.tokenizer, dataset, column="target", control="control", batch_column="plate"
        )


def test_every_knockout_is_scored_by_every_method(found: ZeroShot) -> None:
    scores = found.scores
    assert len(scores) == 4 * len(METHODS)
    assert scores.groupby("perturbation")["method"].apply(set).tolist() == [set(METHODS)] * 4
    assert set(MEASURES) < set(scores.columns)
    assert (scores["n_genes"] == 49).all(), "the target itself is left out"
    assert (scores["n_measured"] == 20).all()
    assert scores["n_reading"].between(1, 50).all()
    for name, table in found.genes.groupby("perturbation"):
        assert len(table) == 49
        assert name not in set(table["symbol"])


def test_scores_follow_from_the_genes(found: ZeroShot) -> None:
    alone = found.scores[found.scores["method"] != "scdiva_other"]
    for (name, method), row in alone.set_index(["perturbation", "method"]).iterrows():
        genes = found.genes[found.genes["perturbation"] == name]
        assert row["n_changed"] == genes["changed"].sum() >= 1
        expected = score_delta(genes[method], genes["measured"], genes["changed"])
        for measure in ("fold_change_spearman", "sign_accuracy", "de_auprc", "pearson_delta", "hit_rate"):
            assert row[measure] == pytest.approx(expected[measure], nan_ok=True)


def test_baselines_see_what_they_may(found: ZeroShot, screen: Path, model: ScDiVaModel) -> None:
    cells = anndata.read_h5ad(screen)
    totals = np.asarray(cells.X.sum(axis=1))
    X, labels = np.log1p(cells.X.toarray() / totals * 1e4), cells.obs["target"].to_numpy()
    plate = cells.obs["plate"].to_numpy()

    def delta(name: str) -> np.ndarray:
        here = [(labels == name) & (plate == p) for p in ("p1", "p2")]
        base = [X[(labels == "control") & (plate == p)].mean(axis=0) for p in ("p1", "p2")]
        return sum(h.sum() * (X[h].mean(axis=0) - b) for h, b in zip(here, base, strict=True)) / (labels == name).sum()

    names = [name for name in cells.var_names[:5]]
    others = tuple((name,) for name in names[1:])
    deltas = np.stack([delta(name) for name in names[1:]])
    control = sp.csr_matrix(X[labels == "control"])
    train = MeasuredPerturbations(tuple(cells.var_names), control, others, deltas, "knockout")
    table = found.genes[found.genes["perturbation"] == names[0]].set_index("symbol")
    own = pd.Series(mean_change(train, (names[0],)), cells.var_names)[table.index]
    np.testing.assert_allclose(table["mean"], own, atol=1e-5)
    np.testing.assert_allclose(
        table["co_expression"], pd.Series(co_expression(train, (names[0],)), cells.var_names)[table.index], atol=1e-5
    )
    np.testing.assert_allclose(table["measured"], pd.Series(delta(names[0]), cells.var_names)[table.index], atol=1e-5)
    raised = table.loc[cells.var_names[10]]
    assert raised["measured"] > 1
    assert raised["changed"]


def test_the_model_predicts_and_its_two_readings_differ(found: ZeroShot) -> None:
    genes = found.genes
    assert (genes["scdiva"].abs() > 0).mean() > 0.9
    assert not np.allclose(genes["scdiva"], genes["scdiva_tokens"])
    assert (genes["no_change"] == 0).all()


def test_predictions_for_other_genes_are_scored_as_well(found: ZeroShot) -> None:
    wide = {name: table.set_index("symbol") for name, table in found.genes.groupby("perturbation")}
    name, *others = wide
    expected = []
    for other in others:
        # A gene's own knockout predicts nothing of it, which counts as no change.
        predicted = wide[other]["scdiva"].reindex(wide[name].index, fill_value=0.0)
        expected.append(score_delta(predicted, wide[name]["measured"], wide[name]["changed"]))
    row = found.scores.set_index(["perturbation", "method"]).loc[(name, "scdiva_other")]
    for measure in ("fold_change_spearman", "sign_accuracy", "de_auprc"):
        assert row[measure] == pytest.approx(np.mean([scores[measure] for scores in expected]))
    assert np.isnan(row["retrieval_rank"])


def test_what_cannot_be_predicted_is_said(found: ZeroShot, screen: Path) -> None:
    unread = anndata.read_h5ad(screen, backed="r").var_names[4]
    assert found.skipped["ABSENT"] == "the vocabulary lacks ABSENT"
    assert found.skipped[unread].startswith(f"None of the 50 cells reads {unread}")
    assert f"Not predicted: ABSENT (the vocabulary lacks ABSENT); {unread} (None of the 50" in found.words
    assert "4 measured knockouts, 50 genes. Spearman " in found.words
    assert "4 perturbations are too few for an interval" in found.words


def test_columns_that_are_not_there_are_refused(model: ScDiVaModel, screen: Path) -> None:
    with open_h5ad(screen, model.vocabulary) as dataset:
        with pytest.raises(
            DataError, match="screen.h5ad has no column 'bio_rep' in obs .it has: .*target, plate.. Name"
        ):
            measured_knockouts(model, model.tokenizer, dataset, column="target", control="control")
        with pytest.raises(DataError, match="screen.h5ad has no column 'condition' in obs"):
            interferon_response(model, model.tokenizer, dataset)
        with pytest.raises(Cancelled):
            measured_knockouts(
                model,
                model.tokenizer,
                dataset,
                column="target",
                control="control",
                batch_column=None,
                cancelled=lambda: True,
            )


def made_up(**values: list[float]) -> ZeroShot:
    """Scores of eight perturbations, all measures alike."""
    rows = [
        {"perturbation": str(number), "method": method, **dict.fromkeys(MEASURES, value)}
        for method, scores in values.items()
        for number, value in enumerate(scores)
    ]
    return ZeroShot("Eight made up", pd.DataFrame(rows), pd.DataFrame(), {}, "A note.")


def test_words_say_who_wins() -> None:
    mixed = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]
    result = made_up(
        scdiva=[0.5] * 8,
        scdiva_tokens=[0.0] * 8,
        scdiva_other=[0.5] * 8,
        co_expression=mixed,
        mean=[0.6] * 8,
        no_change=[np.nan] * 8,
        random=[0.1] * 8,
    )
    assert result.words.startswith(
        "Eight made up. Spearman 0.500: the model is level with the model, other genes knocked out (0.500), "
        "is level with co-expression (0.500), "
        "loses to the mean of the other knockouts (0.600), beats random (0.100). Sign accuracy 0.500: "
    )
    assert result.words.endswith("interval over perturbations holds 0, they are level. A note.")
    assert result.means.index.tolist() == list(METHODS)


def test_words_say_where_a_measure_is_not_defined() -> None:
    result = made_up(scdiva=[0.5] * 6 + [np.nan] * 2, random=[0.1] * 6 + [np.nan] * 2)
    assert "Spearman 0.500 (defined for 6 of 8): the model beats random (0.100)." in result.words
    nothing = made_up(scdiva=[0.5] * 8, no_change=[np.nan] * 8)
    assert "Spearman 0.500: nothing to compare." in nothing.words


def test_few_perturbations_have_no_interval() -> None:
    result = made_up(scdiva=[0.5] * 3, co_expression=[0.6] * 3, random=[0.1] * 3)
    assert "the model is below co-expression (0.600), is above random (0.100)." in result.words
    assert "3 perturbations are too few for an interval: the means alone are compared. A note." in result.words


@pytest.fixture(scope="module")
def stimulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kang's cells, 150 of each condition, over 80 genes that respond or are common."""
    cells = anndata.read_h5ad(DEMO / "kang2018_pbmc_ifnb_3k.h5ad")
    rows = [np.flatnonzero(cells.obs["condition"] == side)[:150] for side in ("CTRL", "STIM")]
    wanted = [*INTERFERON_GENES, "ISG15", "IFI6", "ISG20", "IFIT3", "IFIT1", "MX1", "LY6E"]
    others = cells.var_names[np.argsort(-np.asarray((cells.X > 0).sum(axis=0)).ravel())[:70]]
    cells = cells[np.concatenate(rows), [*wanted, *others.difference(wanted)]].copy()
    path = tmp_path_factory.mktemp("kang") / "kang.h5ad"
    cells.write_h5ad(path)
    return path


def test_the_interferon_response_is_the_truth_turned_round(
    stimulated: Path, tiny_model: Callable[..., ScDiVaModel]
) -> None:
    cells = anndata.read_h5ad(stimulated)
    vocabulary = GeneVocabulary([*SPECIAL, *sorted(cells.var_names)])
    model = tiny_model(len(vocabulary), heads=("latent", "batch_integration"), max_genes=64)
    model.vocabulary, model.tokenizer = vocabulary, Tokenizer.unweighted(len(vocabulary), 64)
    with open_h5ad(stimulated, vocabulary) as dataset:
        result = interferon_response(model, model.tokenizer, dataset, most_cells=10)
    names = [*INTERFERON_GENES, "STAT1+STAT2+IRF9"]
    assert result.scores["perturbation"].unique().tolist() == [name for name in names if name not in result.skipped]
    assert "mean" not in set(result.scores["method"]), "nothing else was measured"
    assert result.scores[["centroid_pearson", "retrieval_rank"]].isna().all(axis=None)
    combined = result.genes[result.genes["perturbation"] == names[-1]].set_index("symbol")
    assert not set(INTERFERON_GENES) & set(combined.index)
    assert combined.loc[["ISG15", "IFI6", "LY6E"], "measured"].max() < -0.5, "control cells express less of them"
    assert combined.loc[["ISG15", "IFI6", "LY6E"], "changed"].all()
    assert "Interferon response undone by knockouts of STAT1, STAT2, IRF9, " in result.words
    # Within a type, weighted by its stimulated cells, as pandas has it.
    X = np.log1p(cells.X.toarray() / np.asarray(cells.X.sum(axis=1)) * 1e4)[:, cells.var_names == "ISG15"].ravel()
    means = pd.Series(X).groupby([cells.obs["cell_type"].astype(str).to_numpy(), cells.obs["condition"].to_numpy()])
    wide, sizes = means.mean().unstack(), means.size().unstack()
    both = wide.notna().all(axis=1)
    expected = np.average((wide["CTRL"] - wide["STIM"])[both], weights=sizes.loc[both, "STIM"])
    assert combined.loc["ISG15", "measured"] == pytest.approx(expected, abs=1e-4)
