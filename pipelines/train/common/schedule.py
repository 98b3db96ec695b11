"""Learning rates over the stages of a run, which weights decay, and moving averages of weights.

What this module does not know: any model or loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """A part of a run with a schedule of its own.

    Attributes:
        steps: How many it has; may be none.
        peak: The largest learning rate.
        floor: The learning rate at its end.
    """

    steps: int
    peak: float
    floor: float = 0.0


def learning_rate(step: int, stages: Sequence[Stage], warmup: int) -> float:
    """The rate at a step of a run, by the schedule of the stage that it falls in."""
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
    """AdamW's two groups: matrices decay, vectors and scalars do not, nor matrices whose name holds `spared`."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, value in named:
        if value.requires_grad:
            (matrices if value.ndim >= 2 and (spared is None or spared not in name) else rest).append(value)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def move_average(pairs: Iterable[tuple[Tensor, Tensor]], decay: float, since: int) -> None:
    """Let averages follow weights, in place.

    Args:
        pairs: Each average with what it follows.
        decay: Of the average, once it has run for long.
        since: Steps that it has followed so far. Early it would be dominated by its start, so it follows quickly.
    """
    import torch

    decay = min(decay, (1 + since) / (10 + since))
    with torch.no_grad():
        for kept, new in pairs:
            kept.lerp_(new, 1 - decay)
