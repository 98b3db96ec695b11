"""Speed of two checkouts of the project compared: the same work in turns on one machine.

    python -m benchmarks.speed.paired OTHER_CHECKOUT [--json FILE] [--rounds N] [--rows N] [--images N] [--turns N]

Each turn is a process that runs `paired_driver.py` with one checkout on the path: other, this, this, other, and so on.
A ratio is this checkout's median over the other's, in adjacent turns; the table shows the median ratio and the
quartiles of all pairs. With the default sizes it takes about eight minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.timing import machine, spread
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("paired_driver.py")
SLOWER = 1.03
"""The ratio above which work counts as slower."""

Times = Mapping[str, Sequence[float]]


def run(checkout: Path, folder: Path, sizes: Sequence[str]) -> dict[str, list[float]]:
    """One turn of a checkout: milliseconds by work.

    Args:
        checkout: Its folder.
        folder: The folder of its collections.
        sizes: Options of the driver.

    Raises:
        UnderdrawingError: The driver failed; the message has its output.
    """
    command = [sys.executable, "-P", str(DRIVER), str(folder), *sizes]
    done = subprocess.run(  # noqa: S603
        command, env={**os.environ, "PYTHONPATH": str(checkout)}, cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise UnderdrawingError(f"The driver failed in {checkout}:\n{done.stderr[-2000:]}")
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(pairs: Sequence[tuple[Times, Times]]) -> dict[str, dict[str, Any]]:
    """By work, the medians of both in milliseconds and the spread of their ratios.

    Args:
        pairs: Adjacent turns: the other checkout's times, and this one's.
    """
    found = {}
    for work in pairs[0][0]:
        theirs, ours = (np.array([np.median(pair[side][work]) for pair in pairs]) for side in (0, 1))
        ratio = spread(ours / theirs)
        found[work] = {
            "other_ms": spread(theirs)["median"],
            "this_ms": spread(ours)["median"],
            "ratio": ratio,
            "pairs": len(pairs),
            "slower": ratio["median"] > SLOWER,
        }
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The comparison as a markdown table."""
    lines = ["| work | other, ms | this, ms | this ÷ other | quartiles |", "| --- | ---: | ---: | ---: | ---: |"]
    for work, own in found.items():
        low, high = own["ratio"]["quartiles"]
        mark = " slower" if own["slower"] else ""
        lines.append(
            f"| {work} | {own['other_ms']:g} | {own['this_ms']:g} | {own['ratio']['median']:g}{mark} | "
            f"{low:g} … {high:g} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.paired", description="Compare two checkouts.")
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT", help="the folder of another state of the code")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE")
    parser.add_argument(
        "--rounds", type=int, default=4, metavar="N", help="rounds of four turns: other, this, this, other"
    )
    parser.add_argument("--rows", type=int, default=30_000, metavar="N", help="documents to search")
    parser.add_argument("--images", type=int, default=300, metavar="N", help="images to index")
    parser.add_argument("--turns", type=int, default=40, metavar="N", help="searches of each kind per turn")
    options = parser.parse_args(arguments)
    try:
        told = _measured(options)
    except UnderdrawingError as error:
        print(f"paired: {error}", file=sys.stderr)
        return error.exit_code
    print(table(told["work"]))
    if options.json:
        atomic_write(options.json, json.dumps(told, indent=1).encode() + b"\n")
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if min(options.rounds, options.images, options.turns) < 1 or options.rows < 4:
        raise CallError("Numbers must be at least 1, and rows at least 4.")
    for package in ("indexer", "retrieval"):
        if not (options.other / package / "__init__.py").exists():
            raise CallError(f"{options.other} is not a checkout of this project: it has no package {package}.")
    sizes = [f"--{name}={getattr(options, name)}" for name in ("rows", "images", "turns")]
    pairs: list[tuple[Times, Times]] = []
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="paired-") as folder:
        folders = {checkout: Path(folder) / name for checkout, name in ((options.other, "other"), (ROOT, "this"))}
        for checkout, own in folders.items():
            own.mkdir()
            run(checkout.resolve(), own, sizes)  # builds the collections; these times do not count
        for turn in range(2 * options.rounds):
            order = [options.other, ROOT][:: -1 if turn % 2 else 1]
            times = {checkout: run(checkout.resolve(), folders[checkout], sizes) for checkout in order}
            pairs.append((times[options.other], times[ROOT]))
            print(f"pair {turn + 1} of {2 * options.rounds}", file=sys.stderr)
    return {"machine": facts, "work": compared(pairs)}


if __name__ == "__main__":
    raise SystemExit(main())
