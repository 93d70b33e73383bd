"""What the page Fine-tune calls things, and what its terms mean."""

from __future__ import annotations

from typing import Any

WHAT_FOR = (
    "teach a copy of the model what your file says of its cells. The copy becomes a checkpoint of your own, which "
    "every page can compute with; the model itself stays as it is."
)

TASKS = {
    "annotation": "Name my cell types",
    "perturbation": "Predict perturbations that were not measured",
    "integration": "Mix my batches",
}
"""What can be learned."""

CAPTIONS = {
    "annotation": "Learns the labels of a column and names cells with exactly these, also in your other files.",
    "perturbation": "Learns from a Perturb-seq file what perturbing a gene changes, and predicts it for other genes on "
    "the page Knockout.",
    "integration": "Learns an embedding in which donors or runs lie on each other and cell types stay apart.",
}
"""One sentence each."""

RECORDS = {"annotation": "finetuned", "perturbation": "perturbation", "integration": "integration"}
"""Part of a card that tells of the training."""

LOSSES = {
    "annotation": {"loss": "naming the wrong type (cross-entropy)"},
    "perturbation": {"loss": "error of the predicted change"},
    "integration": {
        "reconstruction": "rebuilding genes",
        "adversary": "telling batches apart",
        "contrast": "telling types apart",
    },
}
"""What is minimised: columns of the curve, and what they are called."""

SCORES = {
    "annotation": {"macro_f1": "macro-F1", "accuracy": "accuracy"},
    "perturbation": {"spearman": "rank correlation with the measured change"},
    "integration": {"score": "score that chooses", "type_asw": "types held together", "batch_asw": "batches mixed"},
}
"""What is measured on held-out cells; the first one chooses."""

PAGES = {
    "annotation": ("Annotation", "pages/annotation.py"),
    "perturbation": ("Knockout", "pages/knockout.py"),
    "integration": ("Integration", "pages/integration.py"),
}
"""Where a checkpoint of each kind is put to use."""

HELP = {
    "label": "Column of obs (annotations of cells) with the names to learn. Cells without one are left alone.",
    "donor": "Whole donors or batches are then held out and judge: cells of one donor resemble each other, so that a "
    "split through donors promises too much. Without a column, a fifth of the cells of each label judges.",
    "perturbed": "Column of obs with the perturbed gene of each cell; several genes are joined by '+'.",
    "control": "What the column says of cells to which nothing was done.",
    "kind": "Knocked out or knocked down genes are read as silent, activated ones as very high.",
    "perturbed batch": "Cells are then compared with unperturbed cells of their own batch.",
    "batch": "Column of obs that says which cells were measured together: donor, run, sample, file.",
    "type": "Cells of a type are drawn together, whatever their batch. Without a column clusters stand in.",
    "minutes": "It ends earlier when it gets no better. The best weights within this time are kept.",
    "name": "What the checkpoint is called in the sidebar.",
    "seed": "Of the split and of the training: with the same seed the same cells judge.",
    "judge": "Cells that are never learned from; what is measured on them chooses the round that is kept.",
    "curve": "Above, what the training makes smaller. Below, what is measured after each round on cells that only "
    "judge; the ringed round is the one that is kept. Round 0 is before the network itself was changed.",
    "macro_f1": "How well cells are named, type by type: a rare type counts as much as a common one. 1 is perfect.",
    "spearman": "Rank correlation of predicted and measured change over genes, mean over perturbations that only "
    "judge. 1 is perfect, 0 is chance.",
    "score": "0.6 of types held together and 0.4 of batches mixed (both silhouettes, 0 to 1).",
    "stop": "Ends the training now. The weights of the best round become the checkpoint.",
    "delete": "Takes it off the list. Undo brings it back as long as this session lasts; after a day its files go.",
    "use": "Every page then computes with it, until another one is chosen in the sidebar.",
}


def record_of(card: dict[str, Any], task: str) -> dict[str, Any]:
    """What a card tells of the training; empty where it does not."""
    found = card.get(RECORDS.get(task, ""))
    return found if isinstance(found, dict) else {}


def levels_of(record: dict[str, Any], task: str) -> dict[str, float | None]:
    """What simpler ways reach on the cells that judge, by the score that chooses."""
    scores = record.get("validation", {})
    if task == "annotation":
        return {"logistic regression on the frozen model": scores.get("macro_f1_frozen_latent")}
    if task == "perturbation":
        return {"mean of the other perturbations": scores.get("spearman_mean")}
    return {"the model as it was": record.get("before", {}).get("score")}


def score_name(task: str) -> tuple[str, str]:
    """Column and name of the score that chooses."""
    return next(iter(SCORES[task].items()))


def step_of(record: dict[str, Any]) -> int:
    """Number of a record of a curve."""
    return record["round"] if "round" in record else record["epoch"]


def best_of(curve: list[dict[str, Any]], task: str) -> dict[str, Any] | None:
    """Record of the best round so far, as the trainings choose it; without a score the last one. None for no round."""
    column, _ = score_name(task)
    scored = [record for record in curve if record.get(column) is not None]
    return max(scored, key=lambda record: record[column]) if scored else (curve[-1] if curve else None)
