"""The answer to a query: hits in order, and how they came about.

What this module does not know: how anything was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.corpus.paths import printable
from indexer.types import Fields, JsonValue


@dataclass(frozen=True)
class Hit:
    """One document of a ranking.

    Attributes:
        rank: 1 for the best.
        score: Larger is better; see `Results.scale`.
        id: The document's id.
        text: The document's text.
        uri: Where the document came from.
        image: The document's picture, where it has one.
        fields: The document's fields.
        branches: By the name of each part of the query, its cosine with the document. (`shift` without a
            caption also lists `mean_text`, the inner product with a mean that is not of unit length.)
        image_sha256: Of the document's image, as it was indexed; what is shown is compared with it.
        images: All images of the document, in order; `image` is the first.
        images_sha256: Of each, as it was indexed.
    """

    rank: int
    score: float
    id: str
    text: str | None
    uri: str | None
    image: Path | None
    fields: Fields
    branches: Mapping[str, float]
    image_sha256: str | None = None
    images: tuple[Path, ...] = ()
    images_sha256: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Results:
    """The hits of one query, best first, ties by document id.

    Attributes:
        hits: At most k.
        method: How the query was composed.
        model: The embedder's name.
        generation: The collection's state that was searched.
        scale: What a score means, in words.
        pseudo_target: The generated picture, where a method made one: `path` of the first, `paths` of all, `seed`,
            `steps`, `guidance`, and `cached`: whether it was drawn before.
        written: The sentence that was searched with, where a method wrote one: `sentence`, the `caption` it was made
            of, the names of `captioner` and `rewriter` (None for one that was not asked), and `cached`: whether all was
            written before.
        took_ms: Milliseconds by stage: `write` (where a method writes), `encode`, `draw`, `compose`, `search`,
            `documents`. Queries of one batch share them.
        notes: What the user should know: parts left out, fall-backs, an empty collection.
        plan: How the index was searched, in the words of `Plan`: `scan`, `codes`, `pick`, `hnsw`, `ivf`,
            `gpu-scan`, `gpu-ivf`, or several.
    """

    hits: tuple[Hit, ...]
    method: str
    model: str
    generation: int
    scale: str
    pseudo_target: Mapping[str, JsonValue] | None = None
    written: Mapping[str, JsonValue] | None = None
    took_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plan: str = ""

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def to_json(self) -> dict[str, Any]:
        """The object that `underdrawing search --json` prints; `json.dumps` takes it as it is.

        It has `written` where a method wrote a sentence, and a hit has `images`, the files of all of them in order,
        where its document has several; all else is always there.
        """
        told: dict[str, Any] = {
            "hits": [
                {
                    "rank": hit.rank,
                    "id": hit.id,
                    "score": hit.score,
                    "branches": dict(hit.branches),
                    "text": hit.text,
                    "uri": hit.uri,
                    "fields": dict(hit.fields),
                    **({"images": [printable(path) for path in hit.images]} if len(hit.images) > 1 else {}),
                }
                for hit in self.hits
            ],
            "method": self.method,
            "model": self.model,
            "generation": self.generation,
            "pseudo_target": None if self.pseudo_target is None else dict(self.pseudo_target),
            "took_ms": {stage: round(milliseconds, 3) for stage, milliseconds in self.took_ms.items()},
            "notes": list(self.notes),
            "plan": self.plan,
        }
        return told if self.written is None else told | {"written": dict(self.written)}
