"""Self-contained HTML pages: of one search, and of the demo. Pictures are inlined, so a page can be mailed.

What this module does not know: how anything was found or measured.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import ItemError
from retrieval.query import Picture, Query
from retrieval.results import Hit, Results

if TYPE_CHECKING:
    from jinja2 import Environment

THUMBNAIL = 256
"""Longest side, in pixels, of an inlined picture."""


@dataclass(frozen=True)
class ShownHit:
    """A hit beside the judgment."""

    rank: int
    name: str
    score: float
    picture: str
    right: bool


@dataclass(frozen=True)
class MethodRow:
    """What one method found for a question.

    Attributes:
        method: Its name.
        hits: The first few.
        rank: Of the first right answer, or None if it is not among those fetched.
    """

    method: str
    hits: Sequence[ShownHit]
    rank: int | None


@dataclass(frozen=True)
class Card:
    """One question with every method's answer."""

    family: str
    sentence: str
    reference: str
    reference_name: str
    rows: Sequence[MethodRow]


def search_page(query: Query, results: Results) -> str:
    """The page of one search.

    Args:
        query: What was asked; its reference is shown, if it is a picture.
        results: What was found.
    """
    said = query.text or (f"more like {query.like}" if query.like else "more like this picture")
    if query.not_texts:
        said += f", not {', not '.join(query.not_texts)}"
    hits = [
        {
            "rank": hit.rank,
            "id": hit.id,
            "text": hit.text,
            "score": hit.score,
            "branches": hit.branches,
            "picture": thumbnail(hit.image),
        }
        for hit in results.hits
    ]
    page: str = (
        _environment()
        .get_template("search.html.j2")
        .render(said=said, results=results, hits=hits, reference=thumbnail(query.image))
    )
    return page


def demo_page(values: Mapping[str, Any]) -> str:
    """The demo's report; `values` are those that `demo.html.j2` names."""
    page: str = _environment().get_template("demo.html.j2").render(values)
    return page


def shown(hit: Hit, right: bool) -> ShownHit:
    """A hit as the report shows it."""
    return ShownHit(hit.rank, hit.text or hit.id, hit.score, thumbnail(hit.image), right)


def thumbnail(source: Picture | None) -> str:
    """A picture as a data URI, small enough to inline; empty if there is none or it cannot be decoded."""
    from indexer.corpus.images import decode_image

    if source is None:
        return ""
    try:
        image = decode_image(Path(source) if isinstance(source, str) else source)
    except ItemError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=85, method=2)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode()


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader("pipelines", "templates"),
        autoescape=select_autoescape(default_for_string=True, default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
