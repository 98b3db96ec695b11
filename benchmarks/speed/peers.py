"""Comparison with other installed libraries on the same vectors, each used as in its documentation.

The work is one query, and one query with a filter, new each turn, that 1 % of the rows match, with rows returned and at
a recall of 0.95 or more: HNSW peers with an effort setting get the smallest of a doubling series that reaches it.
Libraries that store no rows (FAISS, usearch) get a table in SQLite. Install all with `pip install
'underdrawing[peers]'`.
"""

from __future__ import annotations

import importlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.data import BUCKETS
from benchmarks.speed.races import RECALL, K, Line, answered, recall_of
from benchmarks.speed.timing import race
from indexer.collection import Collection
from indexer.types import Vectors
from indexer.vectors.faiss_index import EF_CONSTRUCTION, faiss
from indexer.vectors.protocol import IndexKind
from indexer.vectors.selection import HNSW_LINKS

SHARE = BUCKETS // 100
"""Number of buckets that a filter matches."""
EFFORTS = (32, 64, 128, 256, 512, 1024)

Search = Callable[[Any, int | None], Any]
"""Searches for a query, (dim,), with a filter by its first bucket, or None for no filter; returns the rows found."""


@dataclass(frozen=True)
class Peer:
    """A library with the vectors in it.

    Attributes:
        search: Its search function.
        filters: Whether it supports filters.
        set_effort: For HNSW, sets how many candidates a search keeps.
    """

    search: Search
    filters: bool = True
    set_effort: Callable[[int], None] | None = None


def measure(
    vectors: Vectors, queries: Vectors, ours: Mapping[IndexKind, Collection], folder: Path, turns: int
) -> dict[str, Any]:
    """Race all installed peers; the others are named.

    Args:
        vectors: The vectors of all contenders.
        queries: Queries; none of them is stored.
        ours: The collection, searched exactly and with HNSW; HNSW peers are compared with the latter, others with the
            former.
        folder: Folder for the peers' files.
        turns: Turns of each race.
    """
    buckets = np.random.default_rng(1).integers(0, BUCKETS, len(vectors))
    peers = {kind.value: Peer(partial(_ours, collection)) for kind, collection in ours.items()}
    told: dict[str, Any] = {"lines": [], "versions": {}, "build_s": {}, "effort": {}}
    truth = {filtered: _truth(vectors, queries[:turns], buckets, filtered) for filtered in (False, True)}
    for package, make in PEERS.items():
        try:
            importlib.import_module(package)
        except ImportError:
            print(f"  {package} is not installed; it is left out.")
            continue
        target = folder / f"peer-{package}"
        shutil.rmtree(target, ignore_errors=True)
        start = time.perf_counter()
        peers[package] = make(vectors, buckets, target)
        told["build_s"][package] = round(time.perf_counter() - start, 2)
        told["versions"][package] = getattr(importlib.import_module(package), "__version__", None) or version(package)
        if (effort := _tuned(peers[package], queries[:turns], truth[False])) is not None:
            told["effort"][package] = effort
    for filtered in (False, True):
        rows: dict[str, Any] = {}
        own = [kind.value for kind in ours]
        for name, peer in peers.items():
            if filtered and not peer.filters:
                continue
            # Each races ours alone: one that takes a second would empty the caches for all others.
            found = race(
                {each: partial(_turn, peers[each].search, queries, filtered) for each in dict.fromkeys([*own, name])},
                turns,
            )
            answers = [np.asarray(_turn(peer.search, queries, filtered, turn)) for turn in range(turns)]
            recall, fewest = recall_of(answers, truth[filtered]), min(len(each) for each in answers)
            rows[name] = {**found.told()[name], "recall": recall, "found": fewest}
            if name not in PEERS:
                continue
            graph = peer.set_effort is not None and not filtered
            reference = (IndexKind.HNSW if graph else IndexKind.EXACT).value
            ratio = found.ratio(reference, name)["median"]
            rows[name] |= {"beside": reference, "ours": found.told()[reference], "ours_of_it": ratio}
            work = f"one query{', 1 % match' if filtered else ''}, {len(vectors):,} × {vectors.shape[1]}, and {name}"
            words = (
                f"{reference} {found.ms(reference)} ms, recall {rows[reference]['recall']:.3f}; "
                f"{name} {found.ms(name)}, recall {recall:.3f}, at least {fewest} hits"
            )
            told["lines"].append(Line(work, f"≤ 1 × {name}", ratio, 1.0, "x", words).json())
        told["filtered" if filtered else "plain"] = rows
    return told


def _truth(vectors: Vectors, queries: Vectors, buckets: Any, filtered: bool) -> list[Any]:
    truth = []
    for turn, query in enumerate(queries):
        start = _start(turn) if filtered else 0
        allowed = np.flatnonzero((buckets >= start) & (buckets < (start + SHARE if filtered else BUCKETS)))
        truth.append(allowed[np.argsort(-(vectors[allowed] @ query))[:K]])
    return truth


def _tuned(peer: Peer, queries: Vectors, truth: list[Any]) -> int | None:
    """Set the smallest effort that reaches the recall, or the largest; None for a peer without one."""
    if peer.set_effort is None:
        return None
    for effort in EFFORTS:
        peer.set_effort(effort)
        if recall_of([np.asarray(peer.search(query, None)) for query in queries], truth) >= RECALL:
            break
    return effort


def _turn(search: Search, queries: Vectors, filtered: bool, turn: int) -> Any:
    return search(queries[turn % len(queries)], _start(turn) if filtered else None)


def _start(turn: int) -> int:
    """The first bucket that a turn's filter matches; each turn has another one."""
    return 7 * turn % (BUCKETS - SHARE)


def _ours(collection: Collection, query: Any, start: int | None) -> Any:
    where = None if start is None else {"bucket": {"$gte": start, "$lt": start + SHARE}}
    return answered(collection, query[None], where=where).ids[0]


def _usearch(vectors: Vectors, buckets: Any, folder: Path) -> Peer:
    index = importlib.import_module("usearch.index").Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(vectors)), vectors)

    def set_effort(effort: int) -> None:
        index.expansion_search = effort

    # Its Python interface has no filters.
    rows = _rows_beside(folder, buckets)
    return Peer(lambda query, _: rows(index.search(query, K).keys.astype(np.int64)), False, set_effort)


def _faiss(vectors: Vectors, buckets: Any, folder: Path) -> Peer:
    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(vectors)

    def set_effort(effort: int) -> None:
        index.hnsw.efSearch = effort

    rows = _rows_beside(folder, buckets)
    return Peer(lambda query, _: rows(index.search(query[None], K)[1][0]), False, set_effort)


def _rows_beside(folder: Path, buckets: Any) -> Callable[[Any], Any]:
    """Fetches rows by number, for libraries that store none."""
    folder.mkdir(parents=True)
    table = sqlite3.connect(folder / "rows.db", isolation_level=None)
    table.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, bucket INTEGER, name TEXT)")
    table.execute("BEGIN")
    table.executemany("INSERT INTO rows VALUES (?, ?, ?)", ((n, int(b), f"number {n}") for n, b in enumerate(buckets)))
    table.execute("COMMIT")
    statement = f"SELECT number, bucket, name FROM rows WHERE number IN ({','.join('?' * K)})"  # noqa: S608

    def fetch(numbers: Any) -> Any:
        found = {row[0]: row for row in table.execute(statement, numbers.tolist())}
        return [found[number][0] for number in numbers.tolist()]

    return fetch


def _lancedb(vectors: Vectors, buckets: Any, folder: Path) -> Peer:
    import pyarrow as pa

    columns = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    data = pa.table({"id": np.arange(len(vectors)), "bucket": buckets, "vector": columns})
    table = importlib.import_module("lancedb").connect(folder).create_table("documents", data)

    def search(query: Any, start: int | None) -> Any:
        asked = table.search(query).distance_type("dot").select(["id", "bucket", "_distance"]).limit(K)
        if start is not None:
            asked = asked.where(f"bucket >= {start} AND bucket < {start + SHARE}", prefilter=True)
        return asked.to_arrow()["id"].to_numpy()

    return Peer(search)


def _chroma(vectors: Vectors, buckets: Any, folder: Path) -> Peer:
    client = importlib.import_module("chromadb").PersistentClient(str(folder))
    table = client.create_collection("documents", configuration={"hnsw": {"space": "ip"}}, embedding_function=None)
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        table.add(
            ids=[str(row) for row in part],
            embeddings=vectors[part.start : part.stop],
            metadatas=[{"bucket": int(buckets[row])} for row in part],
        )

    def search(query: Any, start: int | None) -> Any:
        bounds = None if start is None else [{"bucket": {"$gte": start}}, {"bucket": {"$lt": start + SHARE}}]
        where: Any = bounds and {"$and": bounds}
        found = table.query(query[None], n_results=K, where=where, include=["metadatas", "distances"])
        return np.array([int(each) for each in found["ids"][0]], np.int64)

    return Peer(search, set_effort=lambda effort: table.modify(configuration={"hnsw": {"ef_search": effort}}))


def _milvus(vectors: Vectors, buckets: Any, folder: Path) -> Peer:
    folder.mkdir(parents=True)
    client = importlib.import_module("pymilvus").MilvusClient(str(folder / "milvus.db"))
    client.create_collection("documents", dimension=vectors.shape[1], metric_type="IP")
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        client.insert("documents", [{"id": row, "vector": vectors[row], "bucket": int(buckets[row])} for row in part])

    def search(query: Any, start: int | None) -> Any:
        condition = "" if start is None else f"bucket >= {start} and bucket < {start + SHARE}"
        [hits] = client.search("documents", data=[query.tolist()], limit=K, filter=condition, output_fields=["bucket"])
        return np.array([hit["id"] for hit in hits], np.int64)

    return Peer(search)


PEERS: Mapping[str, Callable[[Vectors, Any, Path], Peer]] = {
    "faiss": _faiss,
    "usearch": _usearch,
    "lancedb": _lancedb,
    "chromadb": _chroma,
    "pymilvus": _milvus,
}
