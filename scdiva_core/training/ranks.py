"""Several processes that train one network together, each on its rows of every batch; ``torchrun`` starts them.

Every process draws the whole batch and all of its noise from the same seeds, computes on its own rows and weighs each
loss term by its share of what the term is a mean over, so that the sum of the gradients is that of one process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scdiva_core.errors import CheckpointError

_PATIENCE = timedelta(hours=1)  # the others wait while the first makes the gene vectors or validates


@dataclass(frozen=True)
class Ranks:
    """Which process of those that train together this is.

    Parameters
    ----------
    number
        0 for the first, which alone writes and reports.
    count
        Of all processes.
    """

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def rows(self, size: int) -> slice:
        """Rows of a batch of this size that are this process' own."""
        return slice(size * self.number // self.count, size * (self.number + 1) // self.count)

    def together(self, module: nn.Module) -> nn.Module:
        """Let the processes' gradients be averaged after each backward pass; weights become those of the first."""
        if self.is_alone:
            return module
        # A process whose rows have no label leaves the annotation head out.
        return DistributedDataParallel(module, forward_sync_buffers=False, find_unused_parameters=True)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each brings."""
        if not self.is_alone:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.count
        return values

    def check_same(self, number: int, device: torch.device) -> None:
        """Make sure that all processes begin at the same step.

        Raises
        ------
        CheckpointError
            One of them sees another state of the run.
        """
        if self.is_alone:
            return
        mine = torch.tensor([number], device=device)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(found, mine)
        steps = [int(step) for step in found]
        if len(set(steps)) > 1:
            said = ", ".join("none" if step < 0 else f"step {step:,}" for step in steps)
            msg = f"The {self.count} processes see unlike states of this run: {said}."
            raise CheckpointError(msg, "Give an output folder that every machine sees under the same path.")

    def leave(self) -> None:
        """End what the processes share; each then goes its own way."""
        if not self.is_alone:
            dist.destroy_process_group()


ALONE = Ranks()
"""A process that trains by itself."""


def join_ranks(device: str) -> tuple[Ranks, str]:
    """Meet the other processes if ``torchrun`` started this one.

    Parameters
    ----------
    device
        ``"cpu"`` (the processes speak through gloo) or ``"cuda"`` (through NCCL, one GPU each).

    Returns
    -------
    Ranks
        `ALONE` without ``torchrun``, or when it started one process only.
    str
        The device of this process.

    Raises
    ------
    CheckpointError
        There are fewer GPUs than processes on this machine.
    """
    if not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        return ALONE, device
    if device == "cuda":
        here, local = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
        if here > torch.cuda.device_count():
            msg = f"torchrun started {here} processes on this machine, which has {torch.cuda.device_count()} GPUs."
            raise CheckpointError(msg, "Start one for each GPU, with --nproc-per-node.")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size()), device


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process is gone."""
    names = ("gloo", "nccl", "connection closed", "connection reset")
    return isinstance(error, dist.DistError) or any(name in str(error).lower() for name in names)
