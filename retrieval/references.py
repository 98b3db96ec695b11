"""A query's own reference among the documents: who says how the answer differs does not look for the reference itself.

Copies are told by the content of the image file, byte for byte.

What this module does not know: vectors, how anything is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import ItemError
from indexer.vectors.protocol import Ids
from retrieval.methods import Encoded
from retrieval.query import Query

if TYPE_CHECKING:
    from PIL.Image import Image

    from indexer.snapshot import Snapshot

MOST_PIXELS = 2_000_000
"""Of a PIL image that is encoded to be compared with those that were stored as PIL images."""
NAMED = 3
"""Documents that a note names."""


@dataclass(frozen=True)
class LeftOut:
    """What one query may not find.

    Attributes:
        ids: (m,) int64 vector ids: of the document that `like` names, and of those with the very image.
        notes: What was left out that nobody named.
    """

    ids: Ids
    notes: tuple[str, ...] = ()


def leave_out(snapshot: Snapshot, encoded: Sequence[Encoded], keep_reference: bool) -> list[LeftOut]:
    """What each query may not find for being its reference.

    A stored reference (`like`) is always left out. Documents with the very image, byte for byte, are left out where
    the query says more than its image; an image alone may well be asked for itself.

    Args:
        snapshot: What is searched.
        encoded: The queries.
        keep_reference: Whether nothing is left out.
    """
    if keep_reference:
        return [LeftOut(np.empty(0, np.int64))] * len(encoded)
    digests = [_digests(snapshot, each) for each in encoded]
    copies = snapshot.with_images({digest for own in digests for digest in own})
    return [_left_out(each, own, copies) for each, own in zip(encoded, digests, strict=True)]


def _left_out(each: Encoded, digests: Sequence[str], copies: dict[str, list[tuple[int, str]]]) -> LeftOut:
    own = [] if each.reference is None else [each.reference]
    found = sorted({pair for digest in digests for pair in copies.get(digest, ())}, key=lambda pair: pair[1])
    others = [(vector, name) for vector, name in found if vector not in own]
    notes: tuple[str, ...] = ()
    if others:
        named = ", ".join(repr(name) for _, name in others[:NAMED])
        more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
        notes = (
            f"Left out {named}{more}: the image is the reference itself, byte for byte. "
            "keep_reference=True (--keep-reference) keeps it.",
        )
    return LeftOut(np.array([*own, *(vector for vector, _ in others)], np.int64), notes)


def _digests(snapshot: Snapshot, encoded: Encoded) -> list[str]:
    """The content keys of the reference, where the query says more than its image."""
    query = encoded.query
    if not (query.text or query.not_texts or query.not_images):
        return []
    if encoded.reference is not None:
        [document] = snapshot.documents(np.array([encoded.reference], np.int64))
        # A page of several images is no copy of its first, nor that of the page.
        return [] if document.image_sha256 is None or len(document.images) > 1 else [document.image_sha256]
    return _of_image(query)


def _of_image(query: Query) -> list[str]:
    from indexer.corpus.images import image_digest

    image = Path(query.image) if isinstance(query.image, str) else query.image
    if image is None:
        return []
    sources: list[Path | bytes | Image] = [image]
    if not isinstance(image, Path | bytes):
        opened = getattr(image, "filename", None)
        sources = [Path(opened)] if isinstance(opened, str) and opened else []
        if image.width * image.height <= MOST_PIXELS:
            sources.append(image)
    found = []
    for source in sources:
        try:
            found.append(image_digest(source))
        except ItemError:  # it was read a moment ago, and is gone
            continue
    return found
