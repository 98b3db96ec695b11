"""Cost of whole processes: start-up and opening a large collection; and growth of cost with the number of vectors."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.speed.data import Maker, synthetic
from benchmarks.speed.races import RECALL, Bench, Line, answered
from benchmarks.speed.timing import race
from indexer.collection import Collection
from indexer.types import Vectors
from indexer.vectors.protocol import IndexKind, IndexSettings, Neighbors

SIZES = (1_000, 10_000, 100_000, 1_000_000)
OPENINGS = 5

OPENING = """
import sys, time
start = time.perf_counter()
import numpy as np
from benchmarks.speed.data import Maker, synthetic
from benchmarks.speed.timing import peak_megabytes
from indexer.vectors.protocol import IndexKind, IndexSettings
query = Maker(int(sys.argv[3])).queries(1)
begun = time.perf_counter()
collection = synthetic(__import__("pathlib").Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
                       IndexSettings(kind=IndexKind(sys.argv[4])))
snapshot = collection.snapshot()
found = snapshot.search(query, 10)
snapshot.documents(found.ids[0])
print(time.perf_counter() - begun, begun - start, peak_megabytes(), found.plan)
"""


def opened(bench: Bench) -> dict[str, Any]:
    """A new process, from opening to the first answer; importing NumPy and the package is measured separately."""
    lines, told = [], {}
    for kind in (IndexKind.EXACT, IndexKind.IVF):
        settings = IndexSettings(kind=kind)
        synthetic(bench.data, bench.large, bench.large_dim, settings).snapshot()  # builds what is missing
        runs = []
        for _ in range(OPENINGS):
            sizes = [str(bench.data), str(bench.large), str(bench.large_dim), kind.value]
            command = [sys.executable, "-c", OPENING, *sizes]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            seconds, imports, megabytes, plan = done.stdout.strip().split(maxsplit=3)
            runs.append((float(seconds), float(imports), float(megabytes)))
        seconds_, imports_, megabytes_ = (float(np.median(column)) for column in zip(*runs, strict=True))
        vectors_mb = bench.large * bench.large_dim * 4 / 1e6
        words = (
            f"plan {plan}; {imports_:.2f} s of imports before; at most {megabytes_:,.0f} MB resident, mapped pages "
            f"included, of {vectors_mb:,.0f} MB of vectors"
        )
        work = f"open to first answer, {bench.large:,} × {bench.large_dim}, {kind.value}"
        lines.append(Line(work, "≤ 1 s", round(seconds_, 3), 1.0, "s", words).json())
        told[kind.value] = {"seconds": [run[0] for run in runs], "resident_mb": megabytes_}
    return {"lines": lines, **told}


def startup(bench: Bench) -> dict[str, Any]:
    """Whole processes, the interpreter's start included: processor time, which is less sensitive to other load."""
    seconds: dict[str, list[float]] = {"python": [], "import": [], "help": []}
    calls = {"python": ["-c", "pass"], "import": ["-c", "import retrieval"], "help": ["-m", "pipelines.cli", "--help"]}
    found = race(
        {name: partial(_started, calls[name], seconds[name]) for name in calls},
        max(3, bench.turns // 3),
    )
    lines = [
        Line(
            work, f"≤ {limit} s", round(float(np.median(seconds[name])), 3), limit, "s", f"{found.ms(name)} ms elapsed"
        )
        for name, work, limit in (
            ("import", "`import retrieval`, processor time", 0.2),
            ("help", "`underdrawing --help`, processor time", 0.4),
        )
    ]
    return {"lines": [line.json() for line in lines], "elapsed_ms": found.told(), "processor_s": seconds}


def _started(arguments: list[str], seconds: list[float], _turn: int) -> None:
    """Run an interpreter, and record its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def growth(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a query, documents returned, and of a commit per document, by the number of vectors."""
    rows: list[dict[str, Any]] = []
    shutil.rmtree(bench.data / "growth", ignore_errors=True)  # existing documents would be committed in no time
    queries = Maker(bench.large_dim).queries(bench.turns)
    for count in [each for each in SIZES if each < bench.large] + [bench.large]:
        row: dict[str, Any] = {"vectors": count}
        start = time.perf_counter()
        made = synthetic(bench.data / "growth", count, bench.large_dim)
        row["commit_ms_per_document"] = round(1000 * (time.perf_counter() - start) / count, 4)
        made.close()
        contenders = {}
        for kind in (IndexKind.EXACT, IndexKind.IVF):
            settings = IndexSettings(kind=kind, recall=RECALL)
            start = time.perf_counter()
            collection = synthetic(bench.data / "growth", count, bench.large_dim, settings)
            row[f"{kind.value}_build_s"] = round(time.perf_counter() - start, 3)
            contenders[kind.value] = partial(_asked, collection, queries)
        row |= {name: own["median"] for name, own in race(contenders, bench.turns).told().items()}
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    slopes = {name: _slope(rows, name) for name in (IndexKind.EXACT.value, IndexKind.IVF.value)}
    lines = [
        Line(
            "exact search by the number of vectors",
            "at most linear",
            slopes["exact"],
            1.1,
            "power of N",
            "above 10,000",
        ),
        Line("search by ivf by the number of vectors", "sublinear", slopes["ivf"], 0.9, "power of N", "above 10,000"),
    ]
    return {"lines": [line.json() for line in lines], "rows": rows, "dim": bench.large_dim}


def _asked(collection: Collection, queries: Vectors, turn: int) -> Neighbors:
    return answered(collection, queries[turn % len(queries)][None])


def _slope(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The power of N by which the time grows, above 10,000 vectors, where fixed costs are negligible."""
    chosen = [row for row in rows if row["vectors"] >= 10_000] or list(rows)
    if len(chosen) < 2:
        return 0.0
    logs = np.log([[row["vectors"], row[name]] for row in chosen])
    return round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 2)
