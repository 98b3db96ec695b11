"""Mixed collections: one text, image or both for each emoji, searched together, in the manner of MixBench.

    python -m benchmarks.mixed [--model M] [--json FILE] [--limit N]

Each of the 3,786 concepts has one document: its name, an image, or both, a third each, by a hash of the concept.
Queries use other words (a wording, or three keywords, never the name) or another vendor's image. A query has one right
document, so nDCG@10 is 1 / log2(rank + 1). The *share* of a modality is its fraction of all top-10 results over its
fraction of the documents: 1 is fair. MixBench (arXiv:2507.19054) does the same with captioned photographs.

There are three ways to compare: `off`, raw vectors; `means`, each modality's mean subtracted (GR-CLIP); and `on`, the
spread of its scores equalized, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Task
from indexer.bundled import CORPUS
from indexer.corpus.records import Entry, make_record, record_or_rejected
from indexer.files.atomic import file_digest
from indexer.types import Center, Document, Modality, Parts
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Reference, Ties
from retrieval import Query
from retrieval.documents import Ranking

KINDS = (Modality.TEXT, Modality.IMAGE, Modality.FUSED)
KEYWORDS = 3


class Pool:
    """The documents, one for each concept, as `index_corpus` reads them.

    Attributes:
        source: Name of the documents.
        documents: Documents by id.
        kinds: The modality of each, by id.
    """

    def __init__(self, documents: Sequence[Document], kinds: Mapping[str, Modality]) -> None:
        listed = "\0".join(f"{document.id} {kinds[document.id]}" for document in documents)
        self.source = f"mixed {file_digest(CORPUS)[:16]} {hashlib.sha256(listed.encode()).hexdigest()[:16]}"
        self.documents = documents
        self.kinds = kinds

    def __iter__(self) -> Iterator[Entry]:
        for document in self.documents:
            image = cast("bytes | None", document.image)  # bytes in this corpus
            made = partial(make_record, id=document.id, text=document.text, image=image, fields={}, uri=document.id)
            yield record_or_rejected(document.id, made)


def build(rows: Sequence[Mapping[str, Any]]) -> Task:
    """Documents and queries from the rows of the emoji corpus; the same rows give the same task."""
    concepts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        concepts.setdefault(row["concept"], []).append(row)
    documents, kinds, queries = [], {}, []
    for concept, drawings in sorted(concepts.items()):
        kind = KINDS[_drawn(f"kind {concept}", len(KINDS))]
        shown = drawings[_drawn(f"drawing {concept}", len(drawings))]
        text = None if kind is Modality.IMAGE else shown["text"]
        documents.append(Document(concept, text, None if kind is Modality.TEXT else shown["image"]))
        kinds[concept] = kind
        about = ("trained concepts" if shown["split"] == "train" else "held-out concepts", f"{kind.value} targets")
        words = next((each for each in shown["wordings"] if each != shown["text"]), None)
        words = words or ", ".join([each for each in shown["keywords"] if each != shown["text"]][:KEYWORDS])
        if words:
            queries.append(_judged(Query(text=words), "text", concept, about))
        others = [row for row in drawings if row["vendor"] != shown["vendor"]]
        if others:
            other = others[_drawn(f"other {concept}", len(others))]
            queries.append(_judged(Query(image=other["image"]), "image", concept, about))
    # Those of one kind together, so that the model reads them in large batches.
    queries.sort(key=lambda query: "image queries" in query.aspects)
    pool = Pool(documents, kinds)
    digests = {"corpus": file_digest(CORPUS)[:16]}
    return Task(queries, corpus=pool, ids=frozenset(kinds), parts=Parts.AUTO, digests=digests)


def _judged(query: Query, kind: str, concept: str, about: Sequence[str]) -> JudgedQuery:
    return JudgedQuery(f"{kind}/{concept}", query, (concept,), aspects=(f"{kind} queries", *about))


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """All of it."""
    return build(pq.read_table(CORPUS).to_pylist())


def limited(task: Task, limit: int) -> Task:
    """A limited number of concepts, spread evenly over the corpus, with their queries."""
    pool = pool_of(task)
    concepts = sorted(pool.kinds)
    if limit >= len(concepts):
        return task
    kept = {concepts[place] for place in np.linspace(0, len(concepts) - 1, limit).astype(int)}
    smaller = Pool(
        [document for document in pool.documents if document.id in kept],
        {name: kind for name, kind in pool.kinds.items() if name in kept},
    )
    queries = [query for query in task.queries if query.targets[0] in kept]
    return replace(task, queries=queries, corpus=smaller, ids=frozenset(kept))


def shares(task: Task, rankings: Mapping[str, Ranking]) -> dict[str, Any]:
    """How fairly each modality is found, over all queries and over those of each aspect.

    Returns:
        `documents`, their number by modality; and `shares`, by aspect: each modality's fraction of the top 10 over its
        fraction of the documents, and `worst`, the factor by which the least fair of them is off.
    """
    kinds = pool_of(task).kinds
    groups: dict[str, list[Ranking]] = {"all": []}
    for query in task.queries:
        for group in ("all", *query.aspects):
            groups.setdefault(group, []).append(rankings[query.query_id])
    found = {name: shares_of(own, kinds) for name, own in groups.items()}
    return {
        "documents": {kind.value: list(kinds.values()).count(kind) for kind in KINDS},
        "shares": {name: {**own, "worst": worst_share(own)} for name, own in found.items()},
    }


def shares_of(ranked: Sequence[Ranking], kinds: Mapping[str, Modality]) -> dict[str, float]:
    """By modality, its fraction of the top 10 over its fraction of the documents."""
    found = [kinds[name] for each in ranked for name in each.ids[:10]]
    stored = list(kinds.values())
    return {
        kind.value: round(
            float(np.mean([each is kind for each in found]) / np.mean([each is kind for each in stored])), 3
        )
        for kind in KINDS
        if kind in stored
    }


def worst_share(shares: Mapping[str, float]) -> float:
    """The factor by which the least fair share is off, either way; a modality never found counts as 1 in 1,000."""
    return round(max(max(each, 1 / max(each, 0.001)) for each in shares.values()), 3)


def pool_of(task: Task) -> Pool:
    """The documents of a task from `build`."""
    assert isinstance(task.corpus, Pool)
    return task.corpus


def _drawn(key: str, choices: int) -> int:
    """A number below `choices` that depends only on the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % choices


BENCHMARK = Benchmark(
    name="mixed",
    title="a mixed collection of bundled emoji",
    home="",
    layout="The corpus is bundled.",
    splits=("all",),
    choices=Choices(Protocol(Gallery.WHOLE, Reference.KEPT, ties=Ties.BY_ID, average=Average.QUERIES), {}),
    measures=Plan(recall=(10,), precision=(), subset=(), gain=(10,)),
    main="nDCG@10",
    read=read,
    model="bundled:emoji-clip",
    limited=limited,
    centers=(Center.OFF, Center.MEANS, Center.ON),
    beyond=shares,
)
