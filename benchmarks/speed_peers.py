"""Other libraries on the same vectors, where they are installed, each as its own documentation says.

One query, and one query that 1 % of the rows match, ids and a field returned. `pip install 'underdrawing[peers]'`.

What this module does not know: how searching is done here.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed_races import K, answered, recall_of
from benchmarks.timing import race
from indexer.collection import Collection
from indexer.types import Vectors

SHARE = 10
"""Of 1,000 buckets, those that a filter lets through."""

Search = Callable[[Any, bool], Any]
"""A query, (dim,), and whether to filter; the row numbers found."""


def measure(vectors: Vectors, queries: Vectors, ours: Collection, folder: Path, turns: int) -> dict[str, Any]:
    """Race all that are installed; those that are not are named."""
    buckets = np.random.default_rng(1).integers(0, 1000, len(vectors))
    searches: dict[str, Search] = {"ours": partial(_ours, ours)}
    for package, make in PEERS.items():
        try:
            importlib.import_module(package)
        except ImportError:
            print(f"  {package} is not installed, and left out.")
            continue
        target = folder / f"peer-{package}"
        shutil.rmtree(target, ignore_errors=True)
        searches[package] = make(vectors, buckets, target)
    told: dict[str, Any] = {"lines": []}
    for filtered in (False, True):
        allowed = np.flatnonzero(buckets < SHARE) if filtered else np.arange(len(vectors))
        truth = [allowed[np.argsort(-(vectors[allowed] @ query))[:K]] for query in queries[:turns]]
        contenders = {
            name: partial(_turn, search, queries, filtered)
            for name, search in searches.items()
            if not (filtered and name == "usearch")  # from Python it has no filters
        }
        found = race(contenders, turns)
        rows = {}
        for name in contenders:
            own = [np.asarray(searches[name](query, filtered)) for query in queries[:turns]]
            rows[name] = {
                **found.told()[name],
                "recall": recall_of(own, truth),
                "found": min(len(each) for each in own),
            }
        told["filtered" if filtered else "plain"] = rows
        print(f"  {'1 % match' if filtered else 'one query'}: {rows}")
    return told


def _turn(search: Search, queries: Vectors, filtered: bool, turn: int) -> Any:
    return search(queries[turn % len(queries)], filtered)


def _ours(collection: Collection, query: Any, filtered: bool) -> Any:
    where = {"bucket": {"$lt": SHARE}} if filtered else None
    return answered(collection, query[None], where=where).ids[0]


def _usearch(vectors: Vectors, buckets: Any, folder: Path) -> Search:
    index = importlib.import_module("usearch.index").Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(vectors)), vectors)
    return lambda query, filtered: index.search(query, K).keys.astype(np.int64)


def _lancedb(vectors: Vectors, buckets: Any, folder: Path) -> Search:
    import pyarrow as pa

    columns = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    data = pa.table({"id": np.arange(len(vectors)), "bucket": buckets, "vector": columns})
    table = importlib.import_module("lancedb").connect(folder).create_table("t", data)

    def search(query: Any, filtered: bool) -> Any:
        asked = table.search(query).metric("dot").select(["id", "bucket"]).limit(K)
        if filtered:
            asked = asked.where(f"bucket < {SHARE}", prefilter=True)
        return asked.to_arrow()["id"].to_numpy()

    return search


def _chroma(vectors: Vectors, buckets: Any, folder: Path) -> Search:
    client = importlib.import_module("chromadb").PersistentClient(str(folder))
    table = client.create_collection("t", metadata={"hnsw:space": "ip", "hnsw:search_ef": 100})
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        table.add(
            ids=[str(row) for row in part],
            embeddings=vectors[part.start : part.stop],
            metadatas=[{"bucket": int(buckets[row])} for row in part],
        )

    def search(query: Any, filtered: bool) -> Any:
        where = {"bucket": {"$lt": SHARE}} if filtered else None
        return np.array([int(each) for each in table.query(query[None], n_results=K, where=where)["ids"][0]], np.int64)

    return search


def _milvus(vectors: Vectors, buckets: Any, folder: Path) -> Search:
    folder.mkdir(parents=True)
    client = importlib.import_module("pymilvus").MilvusClient(str(folder / "milvus.db"))
    client.create_collection("t", dimension=vectors.shape[1], metric_type="IP")
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        client.insert("t", [{"id": row, "vector": vectors[row], "bucket": int(buckets[row])} for row in part])

    def search(query: Any, filtered: bool) -> Any:
        condition = f"bucket < {SHARE}" if filtered else ""
        [hits] = client.search("t", data=[query.tolist()], limit=K, filter=condition, output_fields=["bucket"])
        return np.array([hit["id"] for hit in hits], np.int64)

    return search


PEERS: Mapping[str, Callable[[Vectors, Any, Path], Search]] = {
    "usearch": _usearch,
    "lancedb": _lancedb,
    "chromadb": _chroma,
    "pymilvus": _milvus,
}
