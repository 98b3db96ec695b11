"""A table that compares trained bridges: the cost of each connector, and the recall of the bridge.

    underdrawing train bridge indexer/bundled/emoji.parquet --out runs/bridge-mlp --connector mlp \
        --recipe benchmarks/recipes/emoji-bridge.json
    python -m benchmarks.emoji.names --model bridge:runs/bridge-mlp/model --json runs/bridge-mlp/emoji-clip.json
    python -m benchmarks.emojicir --model bridge:runs/bridge-mlp/model --method joint --split validation \
        --json runs/bridge-mlp/emojicir.json
    python -m benchmarks.mixed --model bridge:runs/bridge-mlp/model --json runs/bridge-mlp/mixed.json
    python -m benchmarks.emoji.bridges runs/bridge-linear runs/bridge-mlp runs/bridge-qformer [--json FILE]

Costs are those that the run recorded; a measure without a file is left blank. The last line of standard output is one
JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from pipelines.train.common.run import RunFolder

MEASURES: Mapping[str, tuple[str, tuple[str | int, ...]]] = {
    "image to name, R@10": ("emoji-clip.json", ("image_to_text", "test", "R@10")),
    "name to image, R@10": ("emoji-clip.json", ("text_to_image", "test", "R@10")),
    "EmojiCIR joint, R@10": ("emojicir.json", ("measures", "R@10", "value")),
    "EmojiCIR joint, mAP@10": ("emojicir.json", ("measures", "mAP@10", "value")),
    "mixed, nDCG@10": ("mixed.json", ("results", 0, "measures", "nDCG@10", "value")),
    "mixed centered, nDCG@10": ("mixed.json", ("results", 2, "measures", "nDCG@10", "value")),
}
"""By column: the file in a run's folder, and the path of the measure in it, a fraction of one."""


def gather(folder: Path) -> dict[str, Any]:
    """One run: its settings, its cost, and its measures.

    Raises:
        CallError: There is no finished run in the folder, or a result file is damaged or belongs to another model.
    """
    try:
        asked = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        last = RunFolder(folder).metrics()[-1]
        costs = {name: last[name] for name in ("trained", "picture_tokens", "memory_mb", "seconds")}
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CallError(f"{folder} holds no run of `underdrawing train bridge`: {error!r}.") from error
    steps = asked["align_steps"] + asked["steps"]
    if last["step"] != steps:
        raise CallError(f"The run in {folder} is at step {last['step']:.0f} of {steps}.", "Let it finish.")
    found = {name: _measure(folder / file, path, folder) for name, (file, path) in MEASURES.items()}
    told = {"connector": asked["connector"], "text": asked["text"], "tower": asked["tower"]}
    samples = {"aligned": asked["align_steps"] * asked["batch"], "pairs": asked["steps"] * asked["batch"]}
    return {**told, **samples, **costs, "measures": {name: value for name, value in found.items() if value is not None}}


def _measure(file: Path, path: Sequence[str | int], folder: Path) -> float | None:
    try:
        value: Any = json.loads(file.read_text(encoding="utf-8"))
        model = value["model"] if "model" in value else value["results"][0]["model"]
        if Path(str(model).partition(":")[2]).parent.resolve() != folder.resolve():
            raise CallError(f"{file} belongs to the model {model}.", f"Measure bridge:{folder}/model.")
        for name in path:
            value = value[name]
        return float(value)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CallError(f"{file} does not have {'/'.join(map(str, path))}: {error!r}.") from error


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row per run; measures in percent."""
    lines = [
        "| connector | text model | trained | tokens per image | peak memory | time | " + " | ".join(MEASURES) + " |",
        "| --- | --- |" + " ---: |" * (4 + len(MEASURES)),
    ]
    for row in rows:
        cells = [
            f"`{row['connector']}`", f"`{row['text']}`",
            f"{row['trained'] / 1e6:.2f} M", f"{row['picture_tokens']:.0f}", f"{row['memory_mb'] / 1000:.1f} GB",
            f"{row['seconds'] / 60:.1f} min",
        ]  # fmt: skip
        cells += [f"{100 * row['measures'][name]:.1f}" if name in row["measures"] else "" for name in MEASURES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji.bridges", description="Compare trained bridges.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder that `train bridge` finished")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    options = parser.parse_args(arguments)
    try:
        rows = [gather(folder) for folder in options.runs]
    except UnderdrawingError as error:
        print(f"bridges: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown(rows))
    line = json.dumps({"benchmark": "bridges", "results": rows}, separators=(",", ":"))
    if options.json:
        atomic_write(options.json, line.encode() + b"\n")
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
