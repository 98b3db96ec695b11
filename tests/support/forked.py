"""Run by `test_forks.py`: does a thing, forks in some way, and does it again in the child. Prints what the child found.

python forked.py WHAT HOW FOLDER
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np

ROWS, DIM = 3000, 64


def embedding(folder: Path, embedder):
    from indexer.types import Item

    return embedder.encode_query([Item(text=f"a red heart number {n}") for n in range(70)])[:, :4].round(4).tolist()


def own_embedder(folder: Path, shared):
    """The child loads a model of its own."""
    from indexer import load_embedder

    return embedding(folder, load_embedder("bundled:emoji-clip", device="cpu"))


def searching(folder: Path, shared):
    """The child opens the collection that its parent searched."""
    from indexer import Collection
    from retrieval import Query, Retriever

    with Collection.open(folder / "shop") as mine:
        return [hit.id for hit in Retriever(mine, "text").search(Query(text="a heart"), k=3)]


def adding(folder: Path, shared):
    """The child makes a collection of its own, and fills it."""
    from indexer import Collection, Document

    with Collection.open(
        folder / f"own-{os.getpid()}-{len(list(folder.iterdir()))}", model="bundled:emoji-clip", device="cpu"
    ) as mine:
        return mine.add([Document(f"{n}", text=f"a heart number {n}") for n in range(40)]).added


def indexing(folder: Path, shared):
    """The child runs a job, whose threads are its own."""
    from indexer import Collection, index_corpus

    with Collection.open(
        folder / f"job-{os.getpid()}-{len(list(folder.iterdir()))}", model="bundled:emoji-clip", device="cpu"
    ) as mine:
        return index_corpus(folder / "texts.jsonl", mine).added


def graph(folder: Path, shared):
    """The child searches and builds with FAISS."""
    from indexer.vectors import faiss_index

    vectors = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    import faiss

    index = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    _, found = index.search(vectors[:50], 1)
    plain = faiss.IndexFlatIP(DIM)
    plain.add(vectors)
    _, exact = plain.search(vectors[:300], 1)
    assert faiss_index.describe()
    return [int(each) for each in exact[:50, 0]], int((found[:, 0] == np.arange(50)).sum() > 40)


def codes(folder: Path, shared):
    """The child scans codes in threads, as its parent did with the same index."""
    query = np.ones(DIM, np.float32) / np.sqrt(DIM)
    return [int(each) for each in shared.search(query[None], 5).ids[0]]


def drawing(folder: Path, pseudo_targets):
    """The child draws with its parent's pseudo_targets."""
    from indexer import load_embedder
    from indexer.types import Item
    from retrieval.providers.pseudo_target import Reference

    embedder = load_embedder("bundled:emoji-clip", device="cpu")
    vector = embedder.encode_query([Item(text="a heart")])[0]
    [target] = pseudo_targets.generate(embedder, [f"in blue {os.getpid()}"], [Reference((), vector)])
    return target.reference is not None


def share(what: str, folder: Path):
    """What parent and child both use."""
    from indexer import Collection, Document, load_embedder

    match what:
        case "embedding":
            return load_embedder("bundled:emoji-clip", device="cpu")
        case "searching":
            with Collection.open(folder / "shop", model="bundled:emoji-clip", device="cpu") as opened:
                opened.add([Document(f"{n}", text=f"a heart number {n}") for n in range(80)])
        case "indexing":
            lines = [json.dumps({"id": f"{n}", "text": f"a heart number {n}"}) for n in range(150)]
            (folder / "texts.jsonl").write_text("\n".join(lines))
        case "codes":
            from indexer.vectors.quantized import QuantizedIndex

            rng = np.random.default_rng(0)
            vectors = rng.standard_normal((30_000, DIM)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            parts = [(vectors, np.arange(len(vectors), dtype=np.int64))]
            return QuantizedIndex.build(parts)
        case "drawing":
            from retrieval.providers.pseudo_target import PseudoTargetProvider

            return PseudoTargetProvider(cache=folder / "drawn", device="cpu")
    return None


def main() -> None:
    what, how, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    import torch

    torch.set_num_threads(2)  # as on a machine with several cores, whatever this one has
    shared = share(what, folder)
    work = globals()[what]
    before = work(folder, shared)
    globals()["_shared"] = shared
    match how:
        case "fork":
            reading, writing = os.pipe()
            if not os.fork():
                os.write(writing, json.dumps(work(folder, shared)).encode())
                os._exit(0)
            os.close(writing)
            with os.fdopen(reading) as told:
                after = json.loads(told.read())
        case "pool":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                after = pool.apply(_in_pool, (what, folder))
        case "loader":  # a data loader's worker, which goes on as long as it is asked
            context = multiprocessing.get_context("fork")
            ask, answer = context.Queue(), context.Queue()
            worker = context.Process(target=_worker, args=(what, folder, ask, answer), daemon=True)
            worker.start()
            for _ in range(2):
                ask.put(1)
                after = answer.get()
            ask.put(None)
            worker.join()
    sys.stdout.write(json.dumps({"before": before, "after": after, "again": work(folder, shared)}) + "\n")


def _in_pool(what: str, folder: Path):
    return globals()[what](folder, globals()["_shared"])


def _worker(what: str, folder: Path, ask, answer) -> None:
    while ask.get() is not None:
        answer.put(_in_pool(what, folder))


if __name__ == "__main__":
    main()
