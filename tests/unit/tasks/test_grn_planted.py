"""A planted network: attention of a network trained on cells that it rules, and plain co-expression, both find it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scdiva_core.baselines.grn import spearman
from scdiva_core.data.tokenizer import EntropyAccumulator, Tokenizer
from scdiva_core.data.vocabulary import GeneVocabulary
from scdiva_core.diffusion.corruption import corrupt
from scdiva_core.diffusion.objective import denoising_loss
from scdiva_core.metrics.grn import ratios
from scdiva_core.model.config import ScDiVaConfig
from scdiva_core.model.network import ScDiVaModel
from scdiva_core.tasks.cell_sample import CellSample
from scdiva_core.tasks.grn_attention import Block, accumulate, choose_block
from scdiva_core.tasks.grn_scores import attention_scores

SPECIAL = ("<pad>", "<mask>", "<pad_fill>", "<bos>", "<eos>")
REGULATORS, TARGETS, OTHERS, CELLS = 10, 60, 10, 1200
STEPS, BATCH = 600, 16


@dataclass(frozen=True, eq=False)
class Planted:
    """Cells with their graph, and a network that was trained on them."""

    truth: np.ndarray
    sample: CellSample
    block: Block
    trained: ScDiVaModel

    def ratio(self, scores: np.ndarray) -> float:
        return ratios(scores, self.truth, self.block.pairs(), draws=0).auprc.value

    def attention(self, model: ScDiVaModel, *, centred: bool = False) -> float:
        return self.ratio(attention_scores(accumulate(model, self.sample, self.block), "both", centred=centred))


def simulated() -> tuple[np.ndarray, np.ndarray]:
    """Graph ``[R, T]``, six targets a regulator, and counts of its cells.

    A regulator is active in a third of the cells, more or less so. Its counts and those of its targets are negative
    binomial about a mean that rises with its activity; the other genes hang on nothing.
    """
    rng = np.random.default_rng(0)
    truth = np.zeros((REGULATORS, TARGETS), bool)
    truth[np.arange(TARGETS) % REGULATORS, np.arange(TARGETS)] = True
    active = (rng.random((CELLS, REGULATORS)) < 1 / 3) * rng.gamma(4, 0.25, (CELLS, REGULATORS))
    mean = np.concatenate([0.15 + 3 * active, 0.15 + 3 * active @ truth, np.ones((CELLS, OTHERS))], axis=1)
    return truth, rng.poisson(mean * rng.gamma(2, 0.5, mean.shape))


def serialised(counts: np.ndarray) -> CellSample:
    names = [f"{kind}{i}" for kind, n in (("R", REGULATORS), ("T", TARGETS), ("O", OTHERS)) for i in range(n)]
    vocabulary = GeneVocabulary([*SPECIAL, *names])
    expression = sp.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32))
    gene_ids = np.arange(len(SPECIAL), len(vocabulary))
    entropy = EntropyAccumulator(len(vocabulary))
    entropy.add(CELLS, gene_ids[expression.indices], expression.data)
    rows = Tokenizer(entropy.entropy(), 64).serialize(expression.indptr, expression.indices, expression.data, gene_ids)
    nothing = np.zeros((CELLS, 0), np.float32)
    return CellSample(np.arange(CELLS), expression, rows, nothing, gene_ids, tuple(names), vocabulary, 64)


def network(vocab_size: int) -> ScDiVaModel:
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64, "value_head_size": 16}
    ids = {"pad_fill_id": 2, "bos_id": 3, "eos_id": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ScDiVaModel(ScDiVaConfig(vocab_size=vocab_size, max_genes=64, heads=(), **sizes, **ids)).eval()


def train(model: ScDiVaModel, sample: CellSample) -> ScDiVaModel:
    """Masked denoising as in pretraining, the anchor from what is visible."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=STEPS)
    model.train()
    for _ in range(STEPS):
        batch = sample.rows.batch(rng.integers(0, len(sample), BATCH))
        loss = denoising_loss(model, batch, corrupt(batch, model.config, generator), anchor_from="visible")
        optimiser.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


@pytest.fixture(scope="module")
def planted() -> Planted:
    truth, counts = simulated()
    sample = serialised(counts)
    names = [f"R{i}" for i in range(REGULATORS)], [f"T{i}" for i in range(TARGETS)]
    block = choose_block(sample, names[0], targets=names[1])
    size = len(sample.vocabulary)
    return Planted(truth, sample, block, train(network(size), sample))


def test_the_block_is_the_planted_graph(planted: Planted) -> None:
    assert [planted.sample.symbols[i] for i in planted.block.regulators] == [f"R{i}" for i in range(REGULATORS)]
    assert [planted.sample.symbols[i] for i in planted.block.targets] == [f"T{i}" for i in range(TARGETS)]
    assert planted.truth.mean() == 0.1


def test_co_expression_finds_the_planted_edges(planted: Planted) -> None:
    found = spearman(planted.sample.expression, planted.block.regulators, planted.block.targets)
    assert planted.ratio(np.abs(found)) > 9


def test_attention_of_a_trained_network_finds_planted_edges(planted: Planted) -> None:
    """So does that of an untrained one, whose heads compare the values alone: nothing here but the planted graph rules
    them. On real cells random weights find next to nothing."""
    assert planted.attention(planted.trained) > 2
    assert planted.attention(planted.trained, centred=True) > 3
