"""The records that all packages share, and the enums of their modes.

What this module does not know: files, SQL, models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import EnumMeta, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from indexer.arguments import described
from indexer.errors import CallError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

ImageSource: TypeAlias = "Path | bytes | Image"
"""An image: a file's path, encoded bytes, or a decoded PIL image. A `str` is never taken for a path."""

JsonValue: TypeAlias = "None | bool | int | float | str | list[JsonValue] | dict[str, JsonValue]"
Fields: TypeAlias = Mapping[str, Any]
"""A JSON object."""

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""float32, shape (n, dim), rows of unit length unless a docstring says otherwise."""
Ids: TypeAlias = "npt.NDArray[np.int64]"
"""Vector ids: int64, dense, never reused, never a position."""
Scores: TypeAlias = "npt.NDArray[np.float32]"
"""Inner products, larger is better."""


class _TextsAlone(EnumMeta):
    """Members are looked up by text; other values may not be comparable with one."""

    def __call__(cls, value: Any, *args: Any, **options: Any) -> Any:
        if not args and not options and not isinstance(value, str):
            shown = value if value is None or isinstance(value, int | float) else described(value)
            raise UnknownNameError(_words(cls.__name__), shown, list(cls.__members__.values()))
        return super().__call__(value, *args, **options)


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


class HelpfulEnum(StrEnum, metaclass=_TextsAlone):
    """A closed set of names; an unknown one raises an error that lists all."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise UnknownNameError(_words(cls.__name__), value, [member.value for member in cls])


class Modality(HelpfulEnum):
    """The parts that an item, and so its vector, is made of."""

    TEXT = "text"
    IMAGE = "image"
    FUSED = "image+text"


MODALITIES = tuple(Modality)
"""A vector's modality as a small number is its position here; see `Catalog.modalities`."""
UNKNOWN = len(MODALITIES)


class Center(HelpfulEnum):
    """Whether the modality gap is corrected before vectors are compared (`indexer/vectors/modality_gap.py`).

    `auto` is `on` if texts and images are both numerous and their means lie apart, else `off`; `means` subtracts the
        means and leaves the spreads as they are.
    """

    AUTO = "auto"
    ON = "on"
    MEANS = "means"
    OFF = "off"


class Role(HelpfulEnum):
    """The side of a search that a vector is on: encoders and modality means differ between the two."""

    QUERY = "query"
    DOCUMENT = "document"


class Parts(HelpfulEnum):
    """Which parts of a document are embedded; the others are stored and returned, but not searched."""

    AUTO = "auto"
    IMAGE = "image"
    TEXT = "text"


@dataclass(frozen=True)
class Mean:
    """The mean of the unit vectors of one role and modality.

    Attributes:
        count: The number of vectors.
        vector: (dim,) float32; the more the vectors differ, the shorter it is.
    """

    count: int
    vector: Vectors


class _FromImage(tuple[Any, ...]):
    """The `images` that follow from `image`.

    `dataclasses.replace` passes all fields as if they had been given. If it sets another `image`, or None, the derived
        `images` must not restore the old one.
    """


class _NotGiven:
    def __repr__(self) -> str:
        return "None"


_NOT_GIVEN: Any = _NotGiven()


def _settle_images(self: Item | Document, adapt: Callable[[Any], Any]) -> None:
    """Make `image` the first of `images`, whichever of the two was given.

    Raises:
        CallError: Both were given and do not agree, or `images` is not a list of images.
    """
    name, image, images = type(self).__name__, self.image, self.images
    if image is _NOT_GIVEN:
        image = None
    elif isinstance(images, _FromImage):
        images = ()
    if isinstance(images, str | bytes | Path) or not isinstance(images, Sequence):
        raise CallError(
            f"{name}.images is one {type(images).__name__}; it is a list of images.", f"Write {name}(images=[...])."
        )
    several = tuple(adapt(each) for each in images)
    first = None if image is None else adapt(image)
    if not several:
        several = () if first is None else _FromImage((first,))
    elif any(each is None for each in several):
        raise CallError(f"{name}.images holds None.", "Leave it out.")
    elif first is not None and not (first is several[0] or (type(first) is type(several[0]) and first == several[0])):
        raise CallError(
            f"{name} has an image and images, and the first of these is a different image.",
            "Give only one of the two; to replace both, also give image=None.",
        )
    object.__setattr__(self, "image", several[0] if several else None)
    object.__setattr__(self, "images", several)


def _typed_image(image: Any) -> Any:
    if isinstance(image, str):
        raise CallError(
            f"Item.image is the string {image[:80]!r}; a string is never taken for a path.",
            "Write Path(...), bytes, or a PIL image.",
        )
    # A PIL image is recognized by its attributes, so reading texts only does not load Pillow.
    if image is not None and not isinstance(image, Path | bytes) and not hasattr(image, "getbands"):
        raise CallError(f"Item.image is {described(image)}; it must be a Path, bytes or a PIL image.")
    return image


def _document_image(image: Any) -> Any:
    # The one place where a plain string is allowed: a document's image can only be a file. `Path` would change a URI,
    # so it stays a string and is refused by its name.
    return Path(image) if isinstance(image, str) and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", image) else image


@dataclass(frozen=True)
class Item:
    """One input of an embedder: a text, an image or several in order, or both (fused).

    Attributes:
        text: The text.
        image: The image, or the first of several.
        images: All images, in order. Give `image` or `images`; each follows from the other.
        modality: What the item is made of.
    """

    text: str | None = None
    image: ImageSource | None = _NOT_GIVEN
    images: Sequence[ImageSource] = ()
    modality: Modality = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _settle_images(self, _typed_image)
        if self.text is None and self.image is None:
            raise CallError("An Item needs a text, an image, or both; it has neither.")
        if self.text is not None and not isinstance(self.text, str):
            raise CallError(f"Item.text is {described(self.text)}; it must be a text.")
        image = Modality.IMAGE if self.text is None else Modality.FUSED
        object.__setattr__(self, "modality", Modality.TEXT if self.image is None else image)


@dataclass(frozen=True)
class Document:
    """What a user stores and gets back.

    Attributes:
        id: Any non-empty string without NUL, unique in its collection; adding it again replaces the document.
        text: Searchable or descriptive text.
        image: A path (referenced, not copied), encoded bytes or a PIL image (both stored once, by content).
        fields: A JSON object, for filters and for display.
        uri: Where the document came from; filled by corpus readers, and for stored images.
        images: Several images in order, such as those of a page. A model that reads text and images jointly reads all
            of them at once; for others, the mean of their vectors is used. Give `image` or `images`; each follows from
            the other, and `image` is the first.

    Raises:
        CallError: `image` and `images` were both given and do not agree.
    """

    id: str
    text: str | None = None
    image: ImageSource | None = _NOT_GIVEN
    fields: Fields = field(default_factory=dict)
    uri: str | None = None
    images: Sequence[ImageSource] = ()

    def __post_init__(self) -> None:
        _settle_images(self, _document_image)


@dataclass(frozen=True)
class Rejected:
    """An item that could not be used, and why.

    Attributes:
        uri: Its location.
        reason: A short stable code for counting; `indexer/reasons.py` lists them.
        detail: One sentence with the numbers.
        hides: Prefix of the ids of documents that may lie under what could not be read: the id itself for one file, a
            folder's path for a folder that cannot be listed, the empty text for a whole source, None for nothing.
            Documents it covers are never pruned: they may still exist.
    """

    uri: str
    reason: str
    detail: str
    hides: str | None = None


@dataclass(frozen=True)
class PassedOver:
    """Something a reader passed over, making neither a document nor a reject.

    Attributes:
        uri: Its location.
        kind: Its name in counts: a suffix such as `.cr2`, or a short phrase such as `README beside tables`.
        hides: As in `Rejected`: an empty folder may be the mount point of an unmounted disk.
    """

    uri: str
    kind: str
    hides: str | None = None


def __getattr__(name: str) -> Any:
    if name == "Centre":
        from indexer.deprecation import warn_renamed

        warn_renamed("indexer.types.Centre", "indexer.types.Center")
        return Center
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
