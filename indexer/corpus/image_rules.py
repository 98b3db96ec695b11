"""How a job reads images: the most pixels that are decoded of one, and whether what a photograph says becomes fields.

What this module does not know: decoding, and where documents come from.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from indexer.arguments import described, flag
from indexer.corpus.image_formats import DECODING
from indexer.errors import CallError
from indexer.types import ImageSource


@dataclass(frozen=True)
class ImageRules:
    """Picklable: decoding processes get it with the documents.

    Attributes:
        max_pixels: Of one image when it is decoded; None is `indexer.corpus.images.MAX_PIXELS`. A JPEG with more is
            decoded reduced, all else is refused.
        exif: Whether date, camera, lens, position and size of a photograph become fields of its document.

    Raises:
        CallError: `max_pixels` is no whole number of at least 1.
    """

    max_pixels: int | None = None
    exif: bool = True

    def __post_init__(self) -> None:
        most = self.max_pixels
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise CallError(f"max_pixels is {described(most)}; it is a whole number of at least 1.")

        flag(self.exif, "exif")

    def decoding(self) -> AbstractContextManager[None]:
        """The context in which images are decoded by these rules."""
        from indexer.corpus.images import decoding_at_most

        return decoding_at_most(self.max_pixels)

    def fields(self, image: ImageSource | None) -> Mapping[str, str | int | float]:
        """What a photograph says of itself; nothing of an image that says nothing, or where it is not wanted."""
        if image is None or not self.exif:
            return {}
        from indexer.corpus.exif import photo_fields

        return photo_fields(image)

    @property
    def key(self) -> str:
        """Changes when an image that was refused may be read now: by a release, a package or an option."""
        heif = importlib.util.find_spec("pillow_heif") is not None
        return f"{DECODING}; heif {heif}; max_pixels {self.max_pixels}"
