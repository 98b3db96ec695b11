"""Self-contained HTML pages: of one search, of the demo, of any template. Images are inlined, so it can be mailed.

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
from pipelines.pages.artifacts import shown_artifacts
from pipelines.terminal.console import shortened
from pipelines.terminal.hit_table import branch_name, fields_line, stages
from retrieval.query import Picture, Query
from retrieval.results import Hit, Results

if TYPE_CHECKING:
    from jinja2 import Environment

    from indexer.snapshot import StoredDocument

THUMBNAIL = 256
"""Longest side, in pixels, of an inlined image."""


@dataclass(frozen=True)
class ShownHit:
    """A hit beside the judgment."""

    rank: int
    name: str
    score: float
    image: str
    right: bool


@dataclass(frozen=True)
class MethodRow:
    """What one method found for a question.

    Attributes:
        method: Its name.
        hits: The first few.
        rank: Of the first right answer, or None if it is not among those fetched.
        pseudo_target: The pseudo-target; empty where the method generated none.
        how: How it was generated, in words.
    """

    method: str
    hits: Sequence[ShownHit]
    rank: int | None
    pseudo_target: str = ""
    how: str = ""


@dataclass(frozen=True)
class Card:
    """One question with every method's answer."""

    family: str
    sentence: str
    reference: str
    reference_name: str
    rows: Sequence[MethodRow]


@dataclass(frozen=True)
class PageCard:
    """One question to a collection of pages.

    Attributes:
        sentence: What was said; may be empty.
        reference: The image asked with; may be empty.
        reference_name: Its name.
        pages: Picture, text, id and score of each page found; a page of one part has the other one empty.
    """

    sentence: str
    reference: str
    reference_name: str
    pages: Sequence[tuple[str, str, str, float]]


def search_page(
    query: Query, results: Results, reference: Picture | list[Picture] | None = None, first: Sequence[str] = ()
) -> str:
    """The page of one search.

    Args:
        query: What was asked.
        results: What was found; the artifacts are shown beside the reference.
        reference: The image asked with, or all of those of a stored document; the query's own by default.
        first: Fields that are shown before all others, such as those of the filter.
    """
    shown_references = reference if isinstance(reference, list) else [reference or query.image]
    said = query.text or (f"more like {query.like}" if query.like else "more like this image")
    if query.not_texts:
        said += f", not {', not '.join(query.not_texts)}"
    hits = [
        {
            "rank": hit.rank,
            "id": hit.id,
            "text": hit.text,
            "score": hit.score,
            "branches": {branch_name(name): value for name, value in hit.branches.items()},
            "fields": shortened(fields_line(hit, first), 80),
            "images": stored_thumbnails(hit),
        }
        for hit in results.hits
    ]
    made: str = (
        _environment()
        .get_template("search.html.j2")
        .render(
            said=said,
            results=results,
            stages=stages(results),
            hits=hits,
            references=[thumbnail(image) for image in shown_references if image is not None],
            artifacts=[
                (artifact, [thumbnail(image) for image in artifact.images]) for artifact in shown_artifacts(results)
            ],
        )
    )
    return made


def page(template: str, values: Mapping[str, Any]) -> str:
    """A page of a template in `templates/`; `values` are those that it names."""
    made: str = _environment().get_template(template).render(values)
    return made


def shown(hit: Hit, right: bool) -> ShownHit:
    """A hit as the report shows it."""
    return ShownHit(hit.rank, hit.text or hit.id, hit.score, stored_thumbnail(hit), right)


def stored_thumbnail(document: Hit | StoredDocument) -> str:
    """The image of a document as a data URI, the first of several; empty where it is not the one that was indexed.

    A page may be handed on, and a collection may come from somebody else and name any file of this machine.
    """
    return next(iter(stored_thumbnails(document)), "")


def stored_thumbnails(document: Hit | StoredDocument) -> list[str]:
    """All images of a document, in order, without those that are not what was indexed; see `stored_thumbnail`."""
    made = [thumbnail(each) for each in stored_images(document)]
    return [each for each in made if each]


def stored_images(document: Hit | StoredDocument) -> list[Picture]:
    """The encoded images of a document that are what was indexed, in order."""
    from indexer.files.media import recorded_image

    recorded = list(zip(document.images, document.images_sha256, strict=True))
    if not recorded and document.image is not None:
        recorded = [(document.image, document.image_sha256)]
    found = [recorded_image(path, digest) for path, digest in recorded]
    return [each for each in found if each is not None]


def thumbnail(source: Picture | None) -> str:
    """A image as a data URI, small enough to inline; empty if there is none or it cannot be decoded."""
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
        loader=PackageLoader("pipelines.pages", "templates"),
        autoescape=select_autoescape(default_for_string=True, default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
