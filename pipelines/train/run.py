"""What every training run shares: its folder, checkpoints, metrics, plot and schedule.

A run folder holds `recipe.json` (what was asked), `metrics.jsonl` (one JSON object a line, append-only),
`checkpoint.pt` (the last state, replaced atomically) and `metrics.png`. A run started again in the same folder with the
same recipe continues at its checkpoint; randomness is drawn from (seed, step), so it goes on as if never stopped.

What this module does not know: any model or loss.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from indexer.embed.devices import settled_device
from indexer.errors import CallError, MissingExtraError, UnknownNameError
from indexer.files.atomic import append_lines, atomic_write, read_lines, sweep_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed import DataclassInstance
    from torch import nn

Recipe = TypeVar("Recipe", bound="DataclassInstance")
OBJECT = 'Give a JSON object of settings, such as {"steps": 1000}.'


def load_recipe(kind: type[Recipe], path: Path | None, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe from its JSON file and the command line, the latter winning.

    Raises:
        CallError: The file is missing or is not a JSON object.
        UnknownNameError: A key that the recipe does not have.
        DeviceError: It is to run on a device that is not here.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CallError(
                f"No recipe at {path}.", "Give a JSON file of settings, or none for those as they are."
            ) from None
        except OSError as error:
            raise CallError(f"The recipe {path} cannot be read: {error.strerror}.", "Give a JSON file.") from None
        except ValueError as error:  # of JSON, or of UTF-8
            raise CallError(f"The recipe {path} is not JSON: {error}.", OBJECT) from None
        if not isinstance(values, dict):
            raise CallError(f"The recipe {path} holds a {type(values).__name__}, not an object.", OBJECT)
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise UnknownNameError("recipe key", key, known)
    for field in fields(kind):
        wanted, value = type(field.default), values.get(field.name)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if wanted in (bool, int, float, str) and field.name in values and not fits:
            raise CallError(f"The recipe's {field.name} is {value!r}; it must be of the type {wanted.__name__}.")
    if "device" in values and "device" in known:
        values["device"] = settled_device(values["device"])
    return kind(**values)


def require_folder(path: Path) -> None:
    """Make a run's folder, if it is not there.

    Raises:
        CallError: There is something else, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CallError(
            f"{path} cannot be the folder of a run: {error.strerror}.", "Name a folder, new or of a run to go on with."
        ) from error


@dataclass
class RunFolder:
    """The files of one training run."""

    path: Path

    @classmethod
    def start(cls, path: Path, recipe: DataclassInstance) -> RunFolder:
        """Open a run folder, refusing one that was started with another recipe; halves of files that a kill left go.

        Raises:
            CallError: The folder holds a run with other settings, which it names; or there can be no such folder.
        """
        require_folder(path)
        asked = json.loads(json.dumps(asdict(recipe)))
        file = path / "recipe.json"
        if file.exists():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CallError(f"{file} is damaged: {error}.", "Choose another folder.") from None
            differing = sorted(key for key in asked | found if asked.get(key) != found.get(key))
            if differing:
                raise CallError(
                    f"{path} holds a run whose {', '.join(differing)} differ from this one's.",
                    "Continue it with its own settings, or choose another folder.",
                )
        else:
            atomic_write(file, json.dumps(asked, indent=2).encode() + b"\n")
        sweep_temporary(path)
        return cls(path)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; a kill leaves the old one or the new one, never half of one."""
        import io

        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        atomic_write(self.path / "checkpoint.pt", buffer.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None. Tensors and plain values only: nothing is unpickled."""
        import torch

        file = self.path / "checkpoint.pt"
        if not file.exists():
            return None
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def log(self, step: int, **values: float) -> None:
        """Append one line of metrics. Lines after the checkpoint of a resumed run appear twice; the last one counts."""
        line = json.dumps({"step": step, "time": round(time.time(), 1), **{k: round(v, 5) for k, v in values.items()}})
        append_lines(self.path / "metrics.jsonl", line.encode() + b"\n")

    def metrics(self) -> list[dict[str, float]]:
        """All logged values by step, in order; what was logged twice counts as logged last."""
        by_step: dict[int, dict[str, float]] = {}
        for line in read_lines(self.path / "metrics.jsonl"):
            record = json.loads(line)
            by_step.setdefault(record["step"], {}).update(record)
        return [by_step[step] for step in sorted(by_step)]

    def plot(self, panels: Mapping[str, list[str]]) -> Path:
        """Draw the metrics, a panel each, to `metrics.png`.

        Args:
            panels: Title to the names of the metrics drawn in it.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingExtraError("matplotlib", "train", "Plotting a run") from None
        records = self.metrics()
        figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for name in names:
                points = [(record["step"], record[name]) for record in records if name in record]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, linewidth=1.4)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("step")
            axes.grid(alpha=0.25)
            if axes.lines:
                axes.legend(fontsize=8, frameon=False)
        target = self.path / "metrics.png"
        figure.savefig(target, dpi=130)
        return target


class Trainer(Protocol):
    """What `drive` drives: a model in training, and where it stands."""

    step: int

    def advance(self) -> Mapping[str, float]:
        """One optimiser step; returns its losses, `loss` among them."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Metric name to value."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs, in tensors and plain values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""
        ...


def drive(
    run: RunFolder,
    trainer: Trainer,
    ends: Sequence[int],
    *,
    batch: int,
    every: int,
    unit: str = "images",
    label: str = "step",
    saved: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Train from where the run stands to its end, with evaluations and checkpoints on the way.

    Logged are the means of the losses and the rate since the last evaluation.

    Args:
        run: Holds the checkpoint, if there is one, and receives the next ones.
        trainer: As made for a new run.
        ends: The steps at which a stage ends, ascending; the last one ends the run. Each is evaluated.
        batch: Samples in a step.
        every: Steps between evaluations.
        unit: What a sample is called.
        label: What the progress bar is called.
        saved: Called after each checkpoint, with its step.

    Returns:
        The last evaluation.
    """
    state = run.load()
    if state is not None:
        trainer.load_state(state)
    note: dict[str, str] = {}
    measured: dict[str, float] | None = None
    sums: dict[str, list[float]] = {}
    clock, seen = time.perf_counter(), 0
    for step in training_progress(trainer.step, ends[-1], note, label):
        for name, value in trainer.advance().items():
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


def training_progress(start: int, steps: int, describe: dict[str, str], label: str = "step") -> Iterator[int]:
    """Count from `start` to `steps` behind a progress bar; `describe` is shown beside it and may change meanwhile."""
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
