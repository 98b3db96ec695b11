"""How fast searching is, beside raw FAISS and NumPy on the same vectors, each with the bar that it should reach.

    python -m benchmarks.speed_search [--json FILE] [--part NAME ...] [--runs N] [--plot FILE]

    exact         one query, exact, documents returned, against raw `IndexFlatIP` and NumPy
    approximate   the same through HNSW and IVF, against the same FAISS index at the same recall
    batch         500 queries at once
    filters       1 query that 50, 10, 1 and 0.1 % of the documents match, against gathering and scanning those
    open          a million vectors: a new process, from opening to the first answer
    startup       `import retrieval` and `underdrawing --help`
    growth        from 1,000 vectors to a million
    peers         other libraries, where they are installed

Contenders take turns; a ratio is the median of the turns' ratios. A part that is run several times keeps the run whose
ratio is the median one. The last line of standard output is one JSON document.

What this module does not know: how searching is done.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.emojicir import cache_folder
from benchmarks.speed_data import Maker, synthetic
from benchmarks.timing import machine, race
from indexer.collection import Collection
from indexer.errors import CallError, UnderdrawingError
from indexer.files import atomic_write
from indexer.index.faiss_index import faiss
from indexer.index.protocol import IndexKind, IndexSettings, Neighbours
from indexer.types import Vectors

K = 10
RECALL = 0.95
SHARES = (0.5, 0.1, 0.01, 0.001)
BATCH = 500
SIZES = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        work: What was done.
        bar: What it should reach, in words.
        value: What it reached.
        limit: The largest value that reaches the bar.
        unit: Of both: `x` (times the contender), `s`, `ms`.
        told: The times behind it, in words.
    """

    work: str
    bar: str
    value: float
    limit: float
    unit: str
    told: str

    def json(self) -> dict[str, Any]:
        """As JSON, with whether the bar was reached."""
        return {**asdict(self), "reached": self.value <= self.limit}


@dataclass(frozen=True)
class Bench:
    """What is searched, and how often.

    Attributes:
        data: Where collections are kept.
        rows: Vectors of the middle-sized collection.
        dim: Its dimension.
        large: Vectors of the large one.
        large_dim: The dimension of the large one, and of those from which `growth` is read.
        turns: Of each race.
    """

    data: Path
    rows: int
    dim: int
    large: int
    large_dim: int
    turns: int

    def collection(self, kind: IndexKind = IndexKind.AUTO) -> Collection:
        """The middle-sized collection."""
        return synthetic(self.data, self.rows, self.dim, IndexSettings(kind=kind, recall=RECALL))

    @cached_property
    def queries(self) -> Vectors:
        """Enough for every part; none is stored."""
        return Maker(self.dim).queries(max(BATCH, self.turns))

    @cached_property
    def flat(self) -> tuple[Vectors, Any]:
        """The vectors in one array, and a raw `IndexFlatIP` of them."""
        with self.collection().snapshot() as snapshot:
            vectors = snapshot.vectors(np.arange(self.rows))
        index = faiss.IndexFlatIP(self.dim)
        index.add(vectors)
        return vectors, index

    def query(self, turn: int) -> Vectors:
        """The query of a turn, (1, dim)."""
        return self.queries[turn % len(self.queries)][None]


def answered(collection: Collection, query: Vectors, **options: Any) -> Neighbours:
    """What a user waits for: the newest state, its neighbours, their documents."""
    snapshot = collection.snapshot()
    found = snapshot.search(query, K, **options)
    snapshot.documents(found.ids[found.ids >= 0])
    return found


def exact(bench: Bench) -> dict[str, Any]:
    """One query at a time, every neighbour the true one."""
    vectors, flat = bench.flat
    collection = bench.collection(IndexKind.EXACT)
    found = race(
        {
            "ours": lambda turn: answered(collection, bench.query(turn)),
            "faiss": lambda turn: flat.search(bench.query(turn), K),
            "numpy": lambda turn: np.argpartition(-(vectors @ bench.query(turn)[0]), K),
        },
        bench.turns,
    )
    truth = flat.search(bench.queries[: bench.turns], K)[1]
    own = [answered(collection, bench.query(turn)) for turn in range(bench.turns)]
    recall = recall_of(np.concatenate([each.ids for each in own]), truth)
    ratio = found.ratio("ours", "faiss")["median"]
    told = f"{found.ms('ours')} ms; IndexFlatIP {found.ms('faiss')}, NumPy {found.ms('numpy')}; recall {recall:.3f}"
    line = Line(f"one query, exact, {size(bench)}, documents returned", "≤ 0.5 × raw FAISS", ratio, 0.5, "x", told)
    plans = sorted({each.plan for each in own})
    return {"lines": [line.json()], "ms": found.told(), "recall": recall, "plans": plans}


def approximate(bench: Bench) -> dict[str, Any]:
    """Through a graph and an inverted file, and by FAISS alone on that very index, at the recall that ours has."""
    truth = bench.flat[1].search(bench.queries, K)[1]
    lines, told = [], {}
    for kind in (IndexKind.HNSW, IndexKind.IVF):
        collection = bench.collection(kind)
        facts = collection.snapshot().index_facts
        ours = np.concatenate([collection.snapshot().search(each[None], K).ids for each in bench.queries])
        recall = recall_of(ours, truth)
        [file] = bench.data.glob(f"speed-{bench.rows}x{bench.dim}/indexes/{kind.value}-*.faiss")
        raw = faiss.read_index(str(file))
        effort, raw_recall = _least_effort(raw, kind, bench.queries, truth, recall)
        found = race(
            {
                "ours": lambda turn, own=collection: answered(own, bench.query(turn)),
                "faiss": lambda turn, index=raw, to=effort, kind=kind: index.search(
                    bench.query(turn), K, params=_parameters(kind, to)
                ),
            },
            10 * bench.turns,
        )
        ratio, beyond = found.ratio("ours", "faiss")["median"], found.beyond("ours", "faiss")["median"]
        words = f"{found.ms('ours')} ms, recall {recall:.3f}; FAISS {found.ms('faiss')}, recall {raw_recall:.3f}"
        # Either bar will do; the one it is nearer to, as a share of it, is told.
        by_ratio = ratio / 1.3 <= beyond / 0.3
        value, limit, unit = (ratio, 1.3, "x") if by_ratio else (beyond, 0.3, "ms")
        bar = "≤ 1.3 × raw FAISS at the same recall, or ≤ 0.3 ms over it"
        lines.append(Line(f"one query by {kind.value}, {size(bench)}", bar, value, limit, unit, words).json())
        told[kind.value] = {"ms": found.told(), "recall": recall, "faiss_recall": raw_recall, "built": dict(facts)}
    return {"lines": lines, **told}


def batch(bench: Bench) -> dict[str, Any]:
    """500 queries in one call."""
    flat, collection = bench.flat[1], bench.collection(IndexKind.EXACT)
    found = race(
        {
            "ours": lambda turn: collection.snapshot().search(bench.queries[:BATCH], K),
            "faiss": lambda turn: flat.search(bench.queries[:BATCH], K),
        },
        max(3, bench.turns // 6),
    )
    ratio = found.ratio("ours", "faiss")["median"]
    told = f"{found.ms('ours')} ms; IndexFlatIP {found.ms('faiss')}"
    line = Line(f"{BATCH} queries at once, exact, {size(bench)}", "≤ 1 × raw FAISS", ratio, 1.0, "x", told)
    return {"lines": [line.json()], "ms": found.told()}


def filters(bench: Bench) -> dict[str, Any]:
    """A query that few match; and what the database takes to say which."""
    vectors = bench.flat[0]
    collection = bench.collection(IndexKind.EXACT)
    lines, told = [], {}
    for share in SHARES:
        where = {"bucket": {"$lt": round(1000 * share)}}
        snapshot = collection.snapshot()
        start = time.perf_counter()
        ids = snapshot.matching(where)
        sql = 1000 * (time.perf_counter() - start)
        found = race(
            {
                "all": lambda turn, where=where: answered(collection, bench.query(turn), where=where),
                "search": lambda turn, where=where, at=snapshot: at.search(bench.query(turn), K, where=where),
                "numpy": lambda turn, ids=ids: _gather_and_scan(vectors, ids, bench.query(turn)[0]),
            },
            bench.turns,
        )
        full = [answered(collection, bench.query(turn), where=where) for turn in range(bench.turns)]
        truth = [ids[np.argsort(-(vectors[ids] @ bench.query(turn)[0]))[:K]] for turn in range(bench.turns)]
        recall = recall_of(np.concatenate([each.ids for each in full]), np.stack(truth))
        ratio = found.ratio("search", "numpy")["median"]
        words = (
            f"{found.ms('search')} ms, NumPy {found.ms('numpy')}; recall {recall:.3f}, plan {full[0].plan}; SQL: "
            f"{sql:.0f} ms to match the first time, with documents {found.ms('all')} ms after that"
        )
        bar = "recall 1 and k hits; ≤ 1.2 × a gather and scan"
        lines.append(Line(f"filter that {100 * share:g} % match, {size(bench)}", bar, ratio, 1.2, "x", words).json())
        told[f"{share:g}"] = {"ms": found.told(), "sql_ms": sql, "recall": recall, "plan": full[0].plan}
        if recall < 1:
            raise UnderdrawingError(f"A filter of {share:g} lost neighbours: recall {recall}.")
    return {"lines": lines, **told}


OPENING = """
import resource, sys, time
start = time.perf_counter()
import numpy as np
from benchmarks.speed_data import Maker, synthetic
from indexer.index.protocol import IndexKind, IndexSettings
query = Maker(int(sys.argv[3])).queries(1)
begun = time.perf_counter()
collection = synthetic(__import__("pathlib").Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]),
                       IndexSettings(kind=IndexKind(sys.argv[4])))
snapshot = collection.snapshot()
found = snapshot.search(query, 10)
snapshot.documents(found.ids[0])
print(time.perf_counter() - begun, begun - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found.plan)
"""


def opened(bench: Bench) -> dict[str, Any]:
    """A new process, from opening to the first answer; importing NumPy and the package is told apart."""
    lines, told = [], {}
    for kind in (IndexKind.EXACT, IndexKind.IVF):
        synthetic(
            bench.data, bench.large, bench.large_dim, IndexSettings(kind=kind)
        ).snapshot()  # builds what is not there
        runs = []
        for _ in range(5):
            sizes = [str(bench.data), str(bench.large), str(bench.large_dim), kind.value]
            command = [sys.executable, "-c", OPENING, *sizes]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            seconds, imports, megabytes, plan = done.stdout.split(maxsplit=3)
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
    """Whole processes, the interpreter's own start among them: processor time, which others' work disturbs less."""
    seconds: dict[str, list[float]] = {"python": [], "import": [], "help": []}
    calls = {"python": ["-c", "pass"], "import": ["-c", "import retrieval"], "help": ["-m", "pipelines.cli", "--help"]}
    found = race(
        {name: lambda _, name=name: seconds[name].append(_processor_seconds(calls[name])) for name in calls},
        max(3, bench.turns // 3),
    )
    lines = [
        Line(
            work, f"≤ {limit} s", round(float(np.median(seconds[name])), 3), limit, "s", f"{found.ms(name)} ms elapsed"
        )
        for name, work, limit in (("import", "`import retrieval`", 0.2), ("help", "`underdrawing --help`", 0.4))
    ]
    return {"lines": [line.json() for line in lines], "elapsed_ms": found.told(), "processor_s": seconds}


def _processor_seconds(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def growth(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a query, documents returned, and of a commit for each document, by the number of vectors."""
    rows: list[dict[str, Any]] = []
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
            collection.snapshot()
            row[f"{kind.value}_build_s"] = round(time.perf_counter() - start, 3)
            contenders[kind.value] = lambda turn, own=collection: answered(own, queries[turn % len(queries)][None])
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


def peers(bench: Bench) -> dict[str, Any]:
    """Other libraries, each as its own documentation says."""
    from benchmarks.speed_peers import measure

    return measure(bench.flat[0], bench.queries, bench.collection(IndexKind.EXACT), bench.data, bench.turns)


PARTS: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "exact": exact,
    "approximate": approximate,
    "batch": batch,
    "filters": filters,
    "open": opened,
    "startup": startup,
    "growth": growth,
    "peers": peers,
}


def recall_of(found: Any, truth: Any) -> float:
    """The share of the true neighbours that were found."""
    return float(np.mean([np.isin(true, own).mean() for own, true in zip(found, truth, strict=True)]))


def size(bench: Bench) -> str:
    """The middle-sized collection's, in words."""
    return f"{bench.rows:,} × {bench.dim}"


def _gather_and_scan(vectors: Vectors, ids: Any, query: Any) -> Any:
    scores = vectors[ids] @ query
    return np.argpartition(-scores, min(K, len(scores) - 1))[:K]


def _parameters(kind: IndexKind, effort: int) -> Any:
    if kind is IndexKind.HNSW:
        return faiss.SearchParametersHNSW(efSearch=effort)
    return faiss.SearchParametersIVF(nprobe=effort)


def _least_effort(index: Any, kind: IndexKind, queries: Vectors, truth: Any, recall: float) -> tuple[int, float]:
    """The least efSearch or nprobe at which FAISS alone finds as many as were found, and what it finds."""
    effort = K if kind is IndexKind.HNSW else 1
    while True:
        reached = recall_of(index.search(queries, K, params=_parameters(kind, effort))[1], truth)
        if reached >= recall or effort > 4096:
            return effort, reached
        effort = max(effort + 1, round(1.05 * effort))


def _slope(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The power of N that the time grows with, above 10,000 vectors, where fixed costs no longer hide it."""
    chosen = [row for row in rows if row["vectors"] >= 10_000] or list(rows)
    if len(chosen) < 2:
        return 0.0
    logs = np.log([[row["vectors"], row[name]] for row in chosen])
    return round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed_search", description="Measure searching.")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there; other parts in it stay")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw `growth` there")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="run each part so often, keep the median run")
    parser.add_argument("--turns", type=int, default=30, metavar="N", help="of each race")
    parser.add_argument("--rows", type=int, default=200_000, metavar="N", help="vectors of the middle-sized collection")
    parser.add_argument("--dim", type=int, default=512, metavar="D", help="their dimension")
    parser.add_argument("--large", type=int, default=1_000_000, metavar="N", help="vectors of the large collection")
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
        raise CallError(f"Numbers are at least 1, and collections have at least {BATCH} vectors.")
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
        from benchmarks.speed_plot import draw_growth

        draw_growth(told["growth"]["rows"], told["growth"]["dim"], options.plot)
    return told


def _median_run(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run in which the first line's value is the median one."""
    return sorted(runs, key=lambda run: run["lines"][0]["value"] if run["lines"] else 0.0)[len(runs) // 2]


if __name__ == "__main__":
    raise SystemExit(main())
