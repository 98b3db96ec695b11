"""The folder of a training run: `recipe.json`, `metrics.jsonl`, `checkpoint.pt`, `metrics.png`.

`metrics.jsonl` has one JSON object per line and only grows; `checkpoint.pt`, the last state, is replaced atomically. A
run started again in the same folder with the same recipe resumes from its checkpoint. Random numbers depend on (seed,
step), so it continues as if never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import CallError, MissingExtraError
from indexer.files.atomic import append_lines, atomic_write, read_lines, sweep_temporary

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def require_folder(path: Path) -> None:
    """Create a run's folder, if it does not exist.

    Raises:
        CallError: There is a file, or the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CallError(
            f"{path} cannot be the folder of a run: {error.strerror}.", "Name a new folder, or that of a run to resume."
        ) from error


@dataclass
class RunFolder:
    """The files of one training run."""

    path: Path

    @classmethod
    def start(cls, path: Path, recipe: DataclassInstance) -> RunFolder:
        """Open a run folder with the same recipe, or a new one; partial files left by a kill are removed.

        Raises:
            CallError: The folder holds a run with other settings, which the error names; or it cannot be created.
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
        """Replace the checkpoint; a kill leaves the old one or the new one, never a partial file."""
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
        """All logged values by step, in order; of values logged twice, the last counts."""
        by_step: dict[int, dict[str, float]] = {}
        for line in read_lines(self.path / "metrics.jsonl"):
            record = json.loads(line)
            by_step.setdefault(record["step"], {}).update(record)
        return [by_step[step] for step in sorted(by_step)]

    def plot(self, panels: Mapping[str, list[str]]) -> Path:
        """Plot the metrics, one panel each, to `metrics.png`.

        Args:
            panels: Title to the names of the metrics in the panel.

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
