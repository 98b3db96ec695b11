"""Speed of GPU search, compared with raw FAISS on the same GPU and with the limit of its memory bandwidth.

    python -m benchmarks.speed.gpu [--json FILE] [--rows N] [--dim D] [--turns N]

    exact     one query, documents returned, in 32 and in 16 bits, and on the CPU
    batch     500 queries at once
    filters   one query with a filter that 50, 10, 1 and 0.1 % of the documents match, on the GPU and on the CPU
    crowd     32 threads with one query each, against raw FAISS behind a lock

The floor is the time in which the GPU reads the vectors once: their bytes by the bandwidth of a copy, as measured in
the same run (a copy reads and writes each byte). Only the first visible GPU is used. Contenders take turns; a ratio is
the median of the turns' ratios. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.options import cache_folder
from benchmarks.speed.data import Maker, synthetic
from benchmarks.speed.races import BATCH, SHARES, K, Line, answered, recall_of
from benchmarks.speed.timing import machine, race
from indexer.collection import Collection
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.types import Vectors
from indexer.vectors.faiss_index import faiss
from indexer.vectors.gpus import Gpu, Gpus, cuda_gpus
from indexer.vectors.protocol import Device, IndexKind, IndexSettings

COPIED = 1 << 30
CROWD = 32


def copy_bandwidth(number: int = 0) -> float:
    """Bytes per second that the GPU's memory reads and writes in a copy of a gigabyte; the best of ten."""
    import torch

    source = torch.empty(COPIED, dtype=torch.uint8, device=f"cuda:{number}")
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        torch.cuda.synchronize(number)
        start = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize(number)
        best = min(best, time.perf_counter() - start)
    return 2 * COPIED / best


class Bench:
    """The contenders: one collection, on a GPU in 32 and 16 bits and on the CPU, and raw FAISS on the same GPU.

    Args:
        card: The GPU.
        bandwidth: Of its memory, in bytes per second.
        folder: Where the collection is stored.
        rows: Number of vectors.
        dim: Length of a vector.
        turns: Turns of each race.
    """

    def __init__(self, card: Gpu, bandwidth: float, folder: Path, rows: int, dim: int, turns: int) -> None:
        self.bandwidth, self.rows, self.dim, self.turns = bandwidth, rows, dim, turns
        self.queries: Vectors = Maker(dim).queries(max(BATCH, turns, CROWD))
        cards = Gpus([card])
        self.collections: dict[str, Collection] = {}
        for name, half in ("card", False), ("card-fp16", True):
            settings = IndexSettings(IndexKind.EXACT, "1TB", device=Device.CUDA, half=half)
            self.collections[name] = synthetic(folder, rows, dim, settings, cards)  # this GPU only, one set of locks
        self.collections["cpu"] = synthetic(folder, rows, dim, IndexSettings(IndexKind.EXACT))
        snapshots = {name: each.snapshot() for name, each in self.collections.items()}
        for name, snapshot in snapshots.items():
            if snapshot.notes:
                raise CallError(f"{name}: {snapshot.notes[0]}", "Measure fewer vectors: --rows N.")
        vectors = snapshots["cpu"].vectors(np.arange(rows))
        flat = faiss.IndexFlatIP(dim)
        flat.add(vectors)
        half_flat = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        half_flat.add(vectors)
        self.raw = {"faiss": card.copied(flat), "faiss-fp16": card.copied(half_flat)}
        self.truth = flat.search(self.queries, K)[1]

    def asked(self, turn: int, count: int) -> Vectors:
        """The queries of a turn, (count, dim)."""
        start = turn % (len(self.queries) - count + 1)
        rows: Vectors = self.queries[start : start + count]
        return rows

    def floor_ms(self, width: int) -> float:
        """Milliseconds to read all vectors once, by bytes per number."""
        return 1000 * self.rows * self.dim * width / self.bandwidth

    def size(self) -> str:
        """In words."""
        return f"{self.rows:,} × {self.dim}"


def exact(bench: Bench) -> dict[str, Any]:
    """One query at a time, exact."""
    return _race(bench, 1, "one query")


def batch(bench: Bench) -> dict[str, Any]:
    """Many queries at once."""
    return _race(bench, BATCH, f"{BATCH} queries at once")


def _race(bench: Bench, count: int, work: str) -> dict[str, Any]:
    def ours(own: Collection, turn: int) -> Any:
        return answered(own, bench.asked(turn, count))

    def theirs(own: Any, turn: int) -> Any:
        return own.search(bench.asked(turn, count), K)

    runs = {name: partial(ours, own) for name, own in bench.collections.items()}
    runs |= {name: partial(theirs, own) for name, own in bench.raw.items()}
    found = race(runs, bench.turns)
    lines = []
    for name, raw, width in ("card", "faiss", 4), ("card-fp16", "faiss-fp16", 2):
        answers = [answered(bench.collections[name], bench.queries[place][None]) for place in range(bench.turns)]
        recall = recall_of(np.concatenate([each.ids for each in answers]), bench.truth[: bench.turns])
        ratio, floor = found.ratio(name, raw)["median"], bench.floor_ms(width)
        told = (
            f"{found.ms(name)} ms; raw FAISS {found.ms(raw)}, floor {floor:.3g}, on the CPU {found.ms('cpu')}; "
            f"recall {recall:.3f}, plan {answers[0].plan}"
        )
        work_told = f"{work}, exact, {8 * width} bits, {bench.size()}, documents returned"
        lines.append(Line(work_told, "≤ 1.3 × raw FAISS on the card", ratio, 1.3, "x", told, recall == 1).json())
    return {"lines": lines, "ms": found.told(), "floor_ms": {"float32": bench.floor_ms(4), "fp16": bench.floor_ms(2)}}


def filters(bench: Bench) -> dict[str, Any]:
    """Filters on a GPU, which fetches more candidates and drops some, against the CPU, which reads only matches."""
    lines, plans = [], {}
    for share in SHARES:
        where = {"bucket": {"$lt": round(1000 * share)}}
        runs = {name: partial(_filtered, bench, own, where) for name, own in bench.collections.items()}
        found = race(runs, bench.turns)
        answers = {name: answered(own, bench.queries[:1], where=where) for name, own in bench.collections.items()}
        same = all(np.array_equal(each.ids, answers["cpu"].ids) for each in answers.values())
        plans[f"{share:g}"] = {name: each.plan for name, each in answers.items()}
        told = f"{found.ms('card')} ms, plan {answers['card'].plan}; on the CPU {found.ms('cpu')}"
        ratio = found.ratio("card", "cpu")["median"]
        work = f"one query that {100 * share:g} % match, {bench.size()}"
        lines.append(Line(work, "≤ 1.1 × the CPU", ratio, 1.1, "x", told, same).json())
    return {"lines": lines, "plans": plans}


def _filtered(bench: Bench, own: Collection, where: Mapping[str, Any], turn: int) -> Any:
    return answered(own, bench.asked(turn, 1), where=where)


def crowd(bench: Bench) -> dict[str, Any]:
    """Many threads searching at the same time."""
    lock, flat = threading.Lock(), bench.raw["faiss"]

    def locked(place: int) -> Any:
        with lock:
            return flat.search(bench.queries[place][None], K)

    def ours(place: int) -> Any:
        return bench.collections["card"].snapshot().search(bench.queries[place][None], K)

    with ThreadPoolExecutor(CROWD) as pool:

        def all_at_once(work: Callable[[int], Any], _turn: int) -> None:
            list(pool.map(work, range(CROWD)))

        found = race({"ours": partial(all_at_once, ours), "locked": partial(all_at_once, locked)}, bench.turns)
    told = f"{found.ms('ours')} ms; raw FAISS one by one {found.ms('locked')}, floor {bench.floor_ms(4):.3g} each time"
    ratio = found.ratio("ours", "locked")["median"]
    line = Line(f"{CROWD} threads, one query each, {bench.size()}", "≤ 0.5 × raw FAISS, locked", ratio, 0.5, "x", told)
    return {"lines": [line.json()], "ms": found.told()}


PARTS = {"exact": exact, "batch": batch, "filters": filters, "crowd": crowd}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.gpu", description="Measure search on a GPU.")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    parser.add_argument("--turns", type=int, default=30, metavar="N", help="of each race")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="vectors")
    parser.add_argument("--dim", type=int, default=512, metavar="D", help="their dimension")
    parser.add_argument("--data", type=Path, default=cache_folder(), metavar="DIR", help="for the collection")
    options = parser.parse_args(arguments)
    try:
        told = _measured(options)
    except UnderdrawingError as error:
        print(f"speed_gpu: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        atomic_write(options.json, json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")
    print(json.dumps(told, separators=(",", ":")))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if min(options.turns, options.dim) < 1 or options.rows < BATCH:
        raise CallError(f"Numbers must be at least 1, and the collection needs at least {BATCH} vectors.")
    card = cuda_gpus()[0]
    bandwidth = copy_bandwidth()
    bench = Bench(card, bandwidth, options.data, options.rows, options.dim, options.turns)
    told: dict[str, Any] = {
        "machine": {**machine(), "card": card.name, "copy_gb_per_second": round(bandwidth / 1e9, 1)}
    }  # fmt: skip
    print(told["machine"])
    for name in options.part:
        told[name] = PARTS[name](bench)
        for line in told[name]["lines"]:
            word = "reached" if line["reached"] else "MISSED"
            print(f"  {line['work']:70} {line['value']:g} {line['unit']} ({line['bar']}: {word}); {line['told']}")
    return told


if __name__ == "__main__":
    raise SystemExit(main())
