"""Learning rates over the stages of a run, weight decay groups, and moving averages of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A part of a run with its own schedule.

    Attributes:
        steps: Number of steps; may be 0.
        peak: Peak learning rate.
        floor: The learning rate at its end.
    """

    steps: int
    peak: float
    floor: float = 0.0


def learning_rate(step: int, stages: Sequence[Stage], warmup: int) -> float:
    """The learning rate at a step of a run, by the schedule of its stage."""
    for stage in stages[:-1]:
        if step < stage.steps:
            return cosine_schedule(step, stage.steps, warmup, stage.peak, stage.floor)
        step -= stage.steps
    last = stages[-1]
    return cosine_schedule(step, last.steps, warmup, last.peak, last.floor)


def cosine_schedule(step: int, steps: int, warmup: int, peak: float, floor: float = 0.0) -> float:
    """Linear warm-up to `peak`, then half a cosine down to `floor` at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]], weight_decay: float, spared: str | None = None
) -> list[dict[str, Any]]:
    """AdamW's two groups: matrices decay; vectors, scalars and matrices whose name contains `spared` do not."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, value in named:
        if value.requires_grad:
            (matrices if value.ndim >= 2 and (spared is None or spared not in name) else rest).append(value)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def move_average(pairs: Iterable[tuple[Tensor, Tensor]], decay: float, since: int) -> None:
    """Update moving averages, in place.

    Args:
        pairs: Each average with its weights.
        decay: Decay of the average after many steps.
        since: Steps averaged so far. Early on the start would dominate, so the average follows quickly.
    """
    import torch

    decay = min(decay, (1 + since) / (10 + since))
    with torch.no_grad():
        for average, new in pairs:
            average.lerp_(new, 1 - decay)
