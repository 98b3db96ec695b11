"""Results of a query: ranked hits, and how they came about.

What this module does not know: how anything was found.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, SupportsIndex, overload

from indexer.corpus.paths import printable
from indexer.types import Fields, JsonValue

SHOWN, WIDTH = 20, 200
"""How many hits a `repr` lists, and how many characters of each text."""


@dataclass(frozen=True, repr=False)
class Hit:
    """One document of a ranking.

    Attributes:
        rank: 1 for the best.
        score: Larger is better; see `Results.scale`.
        id: The document's id.
        text: The document's text.
        uri: Where the document came from.
        image: The document's image, where it has one.
        fields: The document's fields.
        branches: By the name of each part of the query, its cosine with the document. (`shift` without a
            caption also lists `mean_text`, the inner product with a mean that is not of unit length.)
        image_sha256: SHA-256 of the document's image as it was indexed; a page shows the image only if it still agrees.
        images: All images of the document, in order; `image` is the first.
        images_sha256: SHA-256 of each image as it was indexed.
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

    def __repr__(self) -> str:
        return f"Hit({self.rank}, {self.id!r}, score {self.score:.4f})"


@dataclass(frozen=True, repr=False)
class Results:
    """The hits of one query, best first, ties by document id.

    Attributes:
        hits: At most k.
        method: How the query was composed.
        model: The embedder's name.
        generation: The generation of the collection that was searched.
        scale: What a score means, in words.
        artifacts: Artifacts of the method, by name. `pseudo_target`, a generated image: `path` of the first,
            `paths` of all, `seed`, `steps`, `guidance`, and `cached`: whether it was generated before. `caption`, a
            rewritten caption: the `sentence` that was searched with, the `caption` it was made from, the names of
            `captioner` and `rewriter` (None for one that was not asked), and `cached`: whether all of it came from the
            cache.
        took_ms: Milliseconds by stage: `write` (if captions are rewritten), `encode`, `draw`, `compose`, `search`,
            `documents`. Queries of one batch share them.
        notes: Warnings for the user: parts left out, fall-backs, an empty collection.
        plan: How the index was searched, in terms of `Plan`: `scan`, `codes`, `pick`, `hnsw`, `ivf`,
            `gpu-scan`, `gpu-ivf`, or several.
    """

    hits: tuple[Hit, ...]
    method: str
    model: str
    generation: int
    scale: str
    artifacts: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    took_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plan: str = ""

    @property
    def pseudo_target(self) -> Mapping[str, JsonValue] | None:
        """The artifact of that name."""
        return self.artifacts.get("pseudo_target")

    @property
    def written(self) -> Mapping[str, JsonValue] | None:
        """The artifact `caption`, by the name of earlier releases."""
        return self.artifacts.get("caption")

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @overload
    def __getitem__(self, place: SupportsIndex) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Results: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Hit | Results:
        """A hit by its position from 0, or the results with a slice of the hits."""
        return replace(self, hits=self.hits[place]) if isinstance(place, slice) else self.hits[place]

    def __repr__(self) -> str:
        width = max((len(repr(hit.id)) for hit in self.hits[:SHOWN]), default=0)
        lines = [self._headline()]
        lines += [
            f"{hit.rank:>4}  {hit.score:.4f}  {hit.id!r:{width}}  {_beginning(hit)}".rstrip()
            for hit in self.hits[:SHOWN]
        ]
        lines += [f"      and {len(self.hits) - SHOWN:,} more"] if len(self.hits) > SHOWN else []
        return "\n".join([*lines, *(f"note: {_escaped(note)}" for note in self.notes)])

    def _repr_html_(self) -> str:
        """The table that notebooks show."""
        rows = "".join(
            f"<tr><td>{hit.rank}</td><td>{hit.score:.4f}</td><td><code>{_html(hit.id)}</code></td>"
            f"<td>{_html(hit.text or '')}</td><td>{_html(_fields(hit))}</td></tr>"
            for hit in self.hits
        )
        head = "<tr><th>#</th><th>score</th><th>id</th><th>text</th><th>fields</th></tr>" if rows else ""
        notes = "".join(f"<p>note: {_html(note)}</p>" for note in self.notes)
        return f"<p>{_html(self._headline())}</p><table>{head}{rows}</table>{notes}"

    def _headline(self) -> str:
        count = f"{len(self.hits):,} hit{'' if len(self.hits) == 1 else 's'}"
        return f"Results({count}, method {self.method}, {self.model}, generation {self.generation})"

    def __len__(self) -> int:
        return len(self.hits)

    def to_json(self) -> dict[str, Any]:
        """The object that `underdrawing search --json` prints, ready for `json.dumps`.

        `pseudo_target` and `written` are the artifacts `pseudo_target` and `caption` by the names of earlier releases.
        `written` is present if a method rewrote a caption. A hit has `images`, the files of all its images in order, if
        its document has several. All other keys are always present.
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
            "artifacts": {name: dict(artifact) for name, artifact in self.artifacts.items()},
            "pseudo_target": None if self.pseudo_target is None else dict(self.pseudo_target),
            "took_ms": {stage: round(milliseconds, 3) for stage, milliseconds in self.took_ms.items()},
            "notes": list(self.notes),
            "plan": self.plan,
        }
        return told if self.written is None else told | {"written": dict(self.written)}


def _beginning(hit: Hit) -> str:
    """A document's text on one line, cut."""
    text = _escaped(" ".join((hit.text or "").split()))
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _escaped(text: str) -> str:
    """A text as Python writes it, without quotes, so that no character in it moves the cursor."""
    return repr(text)[1:-1] if not text.isprintable() else text


def _fields(hit: Hit) -> str:
    return json.dumps(dict(hit.fields), ensure_ascii=False, default=str)


def _html(text: str) -> str:
    return html.escape(text if len(text) <= WIDTH else text[: WIDTH - 1] + "…")
