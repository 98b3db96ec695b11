"""Mixed collections: one text, picture or both for each emoji, searched together, in the manner of MixBench.

    python -m benchmarks.mixed [--model M] [--json FILE] [--limit N]

Each of the 3,786 concepts has one document: its name, a drawing, or both, a third each, by a hash of the concept. It is
asked for in other words (a wording, or three keywords, never the name) and by another vendor's drawing. There is one
right document for a query, so nDCG@10 is 1 / log2(rank + 1). The *share* of a modality is its part of all first tens
over its part of the documents: 1 is fair. MixBench (arXiv:2507.19054) does the same with captioned photographs.

Three ways to compare: `off`, vectors as they are; `means`, each modality's mean taken off (GR-CLIP); `on`, and the
spread of its scores made equal. The last line of standard output is one JSON document.

What this module does not know: how documents are centred and ranked.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from indexer.bundled import CORPUS
from indexer.collection import Collection
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write, file_digest
from indexer.types import Centre, Document, Modality
from retrieval import Query, Retriever
from retrieval.hydrate import Ranking
from retrieval.metrics import bootstrap_interval, hit_rate_at, mean, ndcg_at

KINDS = (Modality.TEXT, Modality.IMAGE, Modality.FUSED)
WAYS = (Centre.OFF, Centre.MEANS, Centre.ON)
KEYWORDS = 3
K = 10
PART = 512
"""Documents of a commit, and queries of a batch."""


@dataclass(frozen=True)
class Asked:
    """A query and the one document that answers it."""

    query: Query
    kind: str
    target: str
    heldout: bool


@dataclass(frozen=True)
class Pool:
    """What is searched and asked.

    Attributes:
        documents: One for each concept.
        kinds: By document id, what it is made of.
        asked: Up to two queries for each.
    """

    documents: Sequence[Document]
    kinds: Mapping[str, Modality]
    asked: Sequence[Asked]


def build(rows: Sequence[Mapping[str, Any]]) -> Pool:
    """Documents and queries from the rows of the emoji corpus; the same rows give the same pool."""
    concepts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        concepts.setdefault(row["concept"], []).append(row)
    documents, kinds, asked = [], {}, []
    for concept, drawings in sorted(concepts.items()):
        kind = KINDS[_drawn(f"kind {concept}", len(KINDS))]
        shown = drawings[_drawn(f"drawing {concept}", len(drawings))]
        text = None if kind is Modality.IMAGE else shown["text"]
        documents.append(Document(concept, text, None if kind is Modality.TEXT else shown["image"]))
        kinds[concept] = kind
        heldout = shown["split"] != "train"
        words = next((each for each in shown["wordings"] if each != shown["text"]), None)
        words = words or ", ".join([each for each in shown["keywords"] if each != shown["text"]][:KEYWORDS])
        if words:
            asked.append(Asked(Query(text=words), "text", concept, heldout))
        others = [row for row in drawings if row["vendor"] != shown["vendor"]]
        if others:
            other = others[_drawn(f"other {concept}", len(others))]
            asked.append(Asked(Query(image=other["image"]), "image", concept, heldout))
    return Pool(documents, kinds, asked)


def measure(embedder: Embedder, pool: Pool) -> dict[str, Any]:
    """All measures of one model, by way of comparing."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Collection.open(Path(folder) / "pool", embedder) as collection,
    ):
        for start in range(0, len(pool.documents), PART):
            added = collection.add(pool.documents[start : start + PART], skip_rejected=True)
            if added.rejected:
                raise CallError(f"{embedder.name} cannot embed {added.rejected[0].uri}: {added.rejected[0].detail}")
        rankings: dict[Centre, list[Ranking]] = {way: [] for way in WAYS}
        for kind in ("text", "image"):
            queries = [each.query for each in pool.asked if each.kind == kind]
            for start in range(0, len(queries), PART):
                encoded = Retriever(collection, kind).encode(queries[start : start + PART])
                for way in WAYS:
                    rankings[way] += Retriever(collection, kind, centre=way).rank(encoded, K)
    asked = [each for kind in ("text", "image") for each in pool.asked if each.kind == kind]
    return {way.value: _told(asked, ranked, pool.kinds) for way, ranked in rankings.items()}


def _told(asked: Sequence[Asked], ranked: Sequence[Ranking], kinds: Mapping[str, Modality]) -> dict[str, Any]:
    gains = [ndcg_at(each.ids, [own.target], K) for each, own in zip(ranked, asked, strict=True)]
    hits = [hit_rate_at(each.ids, [own.target], K) for each, own in zip(ranked, asked, strict=True)]
    parts = {
        "all": [True] * len(asked),
        **{f"{kind} queries": [each.kind == kind for each in asked] for kind in ("text", "image")},
        "trained concepts": [not each.heldout for each in asked],
        "held-out concepts": [each.heldout for each in asked],
        **{f"{kind.value} targets": [kinds[each.target] is kind for each in asked] for kind in KINDS},
    }
    told: dict[str, Any] = {}
    for name, chosen in parts.items():
        own = [gain for gain, taken in zip(gains, chosen, strict=True) if taken]
        low, high = bootstrap_interval(own)
        told[name] = {
            "queries": len(own),
            "nDCG@10": {"value": round(mean(own), 4), "interval_95": [round(low, 4), round(high, 4)]},
            "R@10": round(mean([hit for hit, taken in zip(hits, chosen, strict=True) if taken]), 4),
            "share": _shares([each for each, taken in zip(ranked, chosen, strict=True) if taken], kinds),
        }
    return told


def _shares(ranked: Sequence[Ranking], kinds: Mapping[str, Modality]) -> dict[str, float]:
    """By modality, its part of the first tens over its part of the documents."""
    found = [kinds[name] for each in ranked for name in each.ids]
    stored = list(kinds.values())
    return {
        kind.value: round(
            float(np.mean([each is kind for each in found]) / np.mean([each is kind for each in stored])), 3
        )
        for kind in KINDS
        if kind in stored
    }


def worst_share(shares: Mapping[str, float]) -> float:
    """By what factor the least fair share is off, either way; what is never found counts as found once in 1,000."""
    return round(max(max(each, 1 / max(each, 0.001)) for each in shares.values()), 3)


def markdown(measures: Mapping[str, Any]) -> str:
    """A row for each way, in percent; shares as factors."""
    lines = [
        "| centre | nDCG@10 | text queries | picture queries | held-out | R@10 | share of text / image / both, "
        "asked by text | asked by a picture |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, told in measures.items():
        cells = [
            f"{100 * told[part]['nDCG@10']['value']:.1f}"
            for part in ("all", "text queries", "image queries", "held-out concepts")
        ]
        cells.append(f"{100 * told['all']['R@10']:.1f}")
        for part in ("text queries", "image queries"):
            cells.append(" / ".join(f"{each:.2f}" for each in told[part]["share"].values()))
        lines.append(f"| `{way}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description="Rank a mixed collection.")
    parser.add_argument("--model", default="bundled:emoji-clip", help="an embedder's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N concepts, spread evenly over the corpus")
    options = parser.parse_args(arguments)
    try:
        if options.limit is not None and options.limit < 1:
            raise CallError(f"--limit is {options.limit}; it must be at least 1.")
        pool = build(_limited(pq.read_table(CORPUS).to_pylist(), options.limit))
        measures = measure(load_embedder(options.model), pool)
    except UnderdrawingError as error:
        print(f"mixed: {error}", file=sys.stderr)
        return error.exit_code
    for told in measures.values():
        for part in told.values():
            part["worst_share"] = worst_share(part["share"])
    document = {
        "benchmark": "mixed",
        "model": options.model,
        "limit": options.limit,
        "corpus": file_digest(CORPUS)[:16],
        "documents": {kind.value: list(pool.kinds.values()).count(kind) for kind in KINDS},
        "measures": measures,
    }
    print(markdown(measures))
    line = json.dumps(document, separators=(",", ":"))
    if options.json:
        atomic_write(options.json, line.encode() + b"\n")
    print(line)
    return 0


def _limited(rows: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    concepts = sorted({row["concept"] for row in rows})
    if limit is None or limit >= len(concepts):
        return rows
    kept = {concepts[place] for place in np.linspace(0, len(concepts) - 1, limit).astype(int)}
    return [row for row in rows if row["concept"] in kept]


def _drawn(key: str, choices: int) -> int:
    """A number below `choices` that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % choices
