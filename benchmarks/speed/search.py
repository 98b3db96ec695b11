"""Speed of search, compared with raw FAISS and NumPy on the same vectors, each with the bar to reach.

    python -m benchmarks.speed_search [--json FILE] [--part NAME ...] [--runs N] [--plot FILE]

    exact         one query, exact, documents returned, against raw `IndexFlatIP` and NumPy
    approximate   the same through HNSW and IVF, against the same FAISS index at the same recall
    batch         500 queries at once
    filters       a filter that 50, 10, 1 and 0.1 % of the documents match, against SQL, gather and scan by hand
    crossover     fetching matching rows against scanning SQ8 codes, by the matching share
    open          a million vectors: a new process, from opening to the first answer
    startup       `import retrieval` and `underdrawing --help`
    growth        from 1,000 vectors to a million
    peers         other libraries, if installed; only on request (`make bench-peers`)

Contenders take turns; a ratio is the median of the turns' ratios. A part that runs several times keeps the run with the
median ratio. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.options import cache_folder
from benchmarks.speed.processes import growth, opened, startup
from benchmarks.speed.races import BATCH, Bench, approximate, batch, crossover, exact, filters
from benchmarks.speed.timing import machine
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.vectors.protocol import IndexKind


def peers(bench: Bench) -> dict[str, Any]:
    """Other libraries, each used as in its documentation."""
    from benchmarks.speed.peers import measure

    ours = {kind: bench.collection(kind) for kind in (IndexKind.EXACT, IndexKind.HNSW)}
    return measure(bench.flat[0], bench.queries, ours, bench.data, bench.turns)


PARTS: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "exact": exact,
    "approximate": approximate,
    "batch": batch,
    "filters": filters,
    "crossover": crossover,
    "open": opened,
    "startup": startup,
    "growth": growth,
    "peers": peers,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed_search", description="Measure searching.")
    usual = [name for name in PARTS if name != "peers"]
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=usual, help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE, keeping its other parts")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw `growth` there")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="repeat each part, keep the median run")
    parser.add_argument("--turns", type=int, default=30, metavar="N", help="of each race")
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="vectors in the middle-sized collection")
    parser.add_argument("--dim", type=int, default=512, metavar="D", help="their dimension")
    parser.add_argument("--large", type=int, default=1_000_000, metavar="N", help="vectors in the large collection")
    parser.add_argument("--large-dim", type=int, default=128, metavar="D", help="their dimension")
    parser.add_argument("--data", type=Path, default=cache_folder(), metavar="DIR", help="for the collections")
    options = parser.parse_args(arguments)
    try:
        told = _measured(options)
    except UnderdrawingError as error:
        print(f"speed_search: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, separators=(",", ":")))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if min(options.runs, options.turns, options.dim, options.large_dim) < 1 or min(options.rows, options.large) < BATCH:
        raise CallError(f"Numbers must be at least 1, and collections need at least {BATCH} vectors.")
    told: dict[str, Any] = {}
    if options.json and options.json.exists():
        told = json.loads(options.json.read_text(encoding="utf-8"))
    bench = Bench(options.data, options.rows, options.dim, options.large, options.large_dim, options.turns)
    for name in options.part:
        facts = machine()
        print(f"{name}: {facts}")
        runs = [PARTS[name](bench) for _ in range(options.runs)]
        told[name] = {"machine": facts, "runs": len(runs), **_median_run(runs)}
        for line in told[name]["lines"]:
            word = "reached" if line["reached"] else "MISSED"
            print(f"  {line['work']:60} {line['value']:g} {line['unit']} ({line['bar']}: {word}); {line['told']}")
        if options.json:
            atomic_write(options.json, json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")
    if options.plot and "growth" in told:
        from benchmarks.speed.plot import draw_growth

        draw_growth(told["growth"]["rows"], told["growth"]["dim"], options.plot)
    return told


def _median_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median value of the first line."""
    return sorted(runs, key=lambda run: run["lines"][0]["value"] if run["lines"] else 0.0)[len(runs) // 2]
