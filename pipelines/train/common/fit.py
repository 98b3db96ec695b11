"""The training loop: optimizer steps, with evaluations and checkpoints on the way, resumable."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from pipelines.train.common.recipe import Recipe
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, learning_rate

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

Asked = TypeVar("Asked", bound=Recipe)


class Stateful(Protocol):
    """A module, an optimizer, or another part of a run that has a state."""

    def state_dict(self) -> Any:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state: Any) -> object:
        """Restore the state."""
        ...


class Trainer(ABC, Generic[Asked]):
    """A model in training, and its progress. A step depends only on the weights, the seed and its number.

    Args:
        recipe: The settings.
        stages: Stages in order.

    Attributes:
        recipe: As given.
        step: How many steps have been made.
        stages: As given.
        optimiser: Set by the subclass.
    """

    optimiser: optim.Optimizer

    def __init__(self, recipe: Asked, stages: Sequence[Stage]) -> None:
        self.recipe, self.step, self.stages = recipe, 0, tuple(stages)

    @abstractmethod
    def losses(self, rng: np.random.Generator) -> Mapping[str, float]:
        """Compute the gradients of one batch; the weights have none yet. Returns its losses, including `loss`."""

    @abstractmethod
    def trained(self) -> Iterable[nn.Parameter]:
        """The weights whose gradients are clipped jointly to a norm of 1."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Metric name to value."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """Each part of the state, by its name in checkpoints."""

    def average(self) -> None:
        """Update moving averages of the weights, if there are any."""

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns its losses."""
        import torch

        rng = np.random.default_rng([self.recipe.seed, self.step])
        rate = learning_rate(self.step, self.stages, self.recipe.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        losses = dict(self.losses(rng))
        torch.nn.utils.clip_grad_norm_(list(self.trained()), 1.0)
        self.optimiser.step()
        self.average()
        self.step += 1
        return losses

    def state(self) -> dict[str, Any]:
        """Everything that `load_state` needs, as tensors and plain values."""
        return {"step": self.step, **{name: part.state_dict() for name, part in self.parts().items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the progress of `state`."""
        self.step = state["step"]
        for name, part in self.parts().items():
            part.load_state_dict(state[name])


def backward(loss: Tensor) -> float:
    """Backpropagate a loss; returns its value."""
    import torch

    torch.autograd.backward([loss])
    return float(loss.detach())


def fit(
    run: RunFolder,
    trainer: Trainer[Any],
    *,
    unit: str = "images",
    label: str = "step",
    saved: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Train from the current step to the end, with evaluations and checkpoints on the way.

    The log has the mean losses and the rate since the last evaluation. Each stage ends with an evaluation.

    Args:
        run: Holds the checkpoint, if there is one, and stores new ones.
        trainer: In its initial state.
        unit: Name of a sample.
        label: Name on the progress bar.
        saved: Called after each checkpoint, with its step.

    Returns:
        The last evaluation.
    """
    state = run.load()
    if state is not None:
        trainer.load_state(state)
    ends = list(itertools.accumulate(stage.steps for stage in trainer.stages))
    batch, every = trainer.recipe.batch, trainer.recipe.evaluate_every
    note: dict[str, str] = {}
    measured: dict[str, float] | None = None
    sums: dict[str, list[float]] = {}
    clock, seen = time.perf_counter(), 0
    for step in _progress(trainer.step, ends[-1], note, label):
        for name, value in trainer.train_step().items():
            sums.setdefault(name, []).append(value)
        seen += batch
        means = {name: sum(values) / len(values) for name, values in sums.items()}
        rate = seen / (time.perf_counter() - clock)
        note["loss"], note[f"{unit}/s"] = f"{means['loss']:.4f}", f"{rate:.0f}"
        if (step + 1) % every == 0 or step + 1 in ends:
            measured = trainer.evaluate()
            run.log(step + 1, **means, **{f"{unit}_per_second": rate}, **measured)
            run.save(trainer.state())
            if saved is not None:
                saved(step + 1)
            sums.clear()
            clock, seen = time.perf_counter(), 0
    return trainer.evaluate() if measured is None else measured


def _progress(start: int, steps: int, describe: dict[str, str], label: str = "step") -> Iterator[int]:
    """Count from `start` to `steps` with a progress bar; `describe` is shown on it and may change meanwhile."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(f"[bold]{label}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("train", total=steps, completed=start, note="")
        for step in range(start, steps):
            yield step
            progress.update(task, advance=1, note="  ".join(f"{key} {value}" for key, value in describe.items()))
