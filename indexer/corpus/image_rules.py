"""How a job reads images: the limit of decoded pixels, and whether EXIF metadata become fields."""

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
    """Rules of one job; picklable, since decoding processes get it with the documents.

    Attributes:
        max_pixels: Limit of decoded pixels per image; None is `indexer.corpus.images.MAX_PIXELS`. A larger JPEG is
            decoded reduced; other formats are refused.
        exif: Whether date, camera, lens, position and size of a photograph become fields of its document.

    Raises:
        CallError: `max_pixels` is not a whole number of at least 1.
    """

    max_pixels: int | None = None
    exif: bool = True

    def __post_init__(self) -> None:
        most = self.max_pixels
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise CallError(f"max_pixels is {described(most)}; it must be a whole number of at least 1.")

        flag(self.exif, "exif")

    def decoding(self) -> AbstractContextManager[None]:
        """A context in which images are decoded by these rules."""
        from indexer.corpus.images import decoding_at_most

        return decoding_at_most(self.max_pixels)

    def fields(self, image: ImageSource | None) -> Mapping[str, str | int | float]:
        """The EXIF fields of a photograph; empty without EXIF, or if `exif` is off."""
        if image is None or not self.exif:
            return {}
        from indexer.corpus.exif import photo_fields

        return photo_fields(image)

    @property
    def key(self) -> str:
        """Changes when a refused image may become readable: by a release, a package or an option."""
        heif = importlib.util.find_spec("pillow_heif") is not None
        return f"{DECODING}; heif {heif}; max_pixels {self.max_pixels}"
