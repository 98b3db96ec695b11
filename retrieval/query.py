"""Queries: a text, a reference image, or both, with optional negatives and weights.

What this module does not know: how a query becomes vectors, collections, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from indexer.arguments import described, finite, url_in
from indexer.errors import CallError, QueryError
from indexer.types import ImageSource, Item, Modality

Picture: TypeAlias = "ImageSource | str"
"""An image in a query. A `str` is accepted here, since it can only be a path."""


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of a query. Those that are None are the method's tuned weights.

    A method refuses a weight that it does not read.

    Attributes:
        image: Weight of the reference (`sum`).
        text: Weight of the sentence (`sum`).
        negative: Weight of each negative, subtracted (every method).
        alpha: The position on the arc from image (0) to text (1) (`slerp`), or the length of the step (`shift`).
        inversion: Weight of the sentence read with the reference's pseudo-word (`inversion`, `cig`).
        pseudo_target: Weight of the pseudo-target (`cig`).
        penalty: BASIC's lambda: what an uneven pair of similarities costs (`product`).
        text_floor: The similarity to the text that counts as zero (`product`).
        image_floor: The similarity to the image that counts as zero (`product`).
    """

    image: float | None = None
    text: float | None = None
    negative: float | None = None
    alpha: float | None = None
    inversion: float | None = None
    pseudo_target: float | None = None
    penalty: float | None = None
    text_floor: float | None = None
    image_floor: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            try:
                object.__setattr__(self, name, finite(value, name))
            except CallError:
                shown = repr(value) if isinstance(value, str | bool | float) else described(value)
                raise QueryError(f"The weight {name} is {shown[:80]}; it must be a finite number.") from None

    def __getitem__(self, name: str) -> float:
        """The weight of that name, which must have been given."""
        value = getattr(self, name)
        if value is None:
            raise QueryError(f"The weight {name} is needed but was not given.", f"Write Weights({name}=...).")
        return float(value)

    def given(self) -> dict[str, float]:
        """The weights that are not None, by name: what JSON stores, and `Weights(**stored)` reads."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def over(self, defaults: Weights) -> Weights:
        """These weights, with the defaults for those that are None."""
        return Weights(**(defaults.given() | self.given()))


@dataclass(frozen=True)
class Query:
    """A text, a reference, or both (a composed query), with optional negatives.

    White space around texts is dropped. NUL and lone surrogates, which no tokenizer reads, become U+FFFD.
    Texts may be of any length; the model's tokenizer cuts them.

    Attributes:
        text: The sentence: what the answer shows, or how it differs from the reference.
        image: The reference: a path (a `str` too), encoded bytes, or a PIL image.
        like: The id of a stored document that is the reference. Its stored vector is used, whatever it was
            made of (the method `joint` reads its image), and the document itself is left out of the results.
        not_texts: Sentences that the answer should not match.
        not_images: Images that the answer should not resemble.
        wordings: Paraphrases of the sentence. Their vectors and that of `text` are averaged; a pseudo-target is
            generated from `text` alone.
        caption: What the reference shows: read by `shift`, and by `caption` in place of a captioner.
        instruction: The task, for models that read an instruction, such as "Find the same thing as it is changed."
            None for the instruction that the model was trained with.
        weights: Weights that override the retriever's.
        items: The parts of the query by branch name: `text`, `image`, `not_text_1`, ..., `not_image_1`, ... The
            vector of a branch is the mean of its items' vectors, at unit length. The reference is `image`, whether it
            was given or is stored; a stored one has no items, since its vector exists already.
        branches: The modality of each branch's vector, by the same names.
        sentences: The text and its paraphrases; empty without a text.
        is_composed: Whether there are both a text and a reference.

    Raises:
        QueryError: There is nothing to look for, or a part is empty or of the wrong type.
    """

    text: str | None = None
    image: Picture | None = None
    like: str | None = None
    not_texts: tuple[str, ...] = ()
    not_images: tuple[Picture, ...] = ()
    caption: str | None = None
    instruction: str | None = None
    weights: Weights | None = None
    wordings: tuple[str, ...] = ()
    items: Mapping[str, tuple[Item, ...]] = field(init=False, repr=False, compare=False)
    branches: Mapping[str, Modality] = field(init=False, repr=False, compare=False)
    sentences: tuple[str, ...] = field(init=False, repr=False, compare=False)
    is_composed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.image is not None and self.like is not None:
            raise QueryError("A query has one reference; this one has both `image` and `like`.")
        if self.text is None and self.image is None and self.like is None:
            raise QueryError(
                "A query needs something to look for; this one has no `text`, `image` or `like`.",
                "Negatives alone do not say what to find.",
            )
        if self.text is None and len(_several(self.wordings)):
            raise QueryError("A query has `wordings`, but no `text` that they paraphrase.")
        if self.like is not None and (not isinstance(self.like, str) or not self.like):
            raise QueryError(f"`like` is {self.like!r}; it must be the id of a stored document.")
        if self.weights is not None and not isinstance(self.weights, Weights):
            raise QueryError(f"`weights` is {described(self.weights)}.", "Write Weights(...).")
        settle: dict[str, Any] = {
            "text": None if self.text is None else checked_text("`text`", self.text),
            "caption": None if self.caption is None else checked_text("`caption`", self.caption),
            "instruction": None if self.instruction is None else checked_text("`instruction`", self.instruction),
            "image": None if self.image is None else checked_image("`image`", self.image),
            # People easily write a single negative without its tuple, and a string would fall apart into letters.
            "wordings": tuple(checked_text("`wordings`", text) for text in _several(self.wordings)),
            "not_texts": tuple(checked_text("`not_texts`", text) for text in _several(self.not_texts)),
            "not_images": tuple(checked_image("`not_images`", image) for image in _several(self.not_images)),
        }
        for name, value in settle.items():
            object.__setattr__(self, name, value)
        self._name_parts()

    def _name_parts(self) -> None:
        """Compute once what every search derives from the fields."""
        items: dict[str, tuple[Item, ...]] = {}
        object.__setattr__(self, "sentences", () if self.text is None else (self.text, *self.wordings))
        if self.text is not None:
            items["text"] = tuple(Item(text=each) for each in self.sentences)
        if self.image is not None or self.like is not None:
            items["image"] = () if self.image is None else (Item(image=checked_image("`image`", self.image)),)
        for number, text in enumerate(self.not_texts, 1):
            items[f"not_text_{number}"] = (Item(text=text),)
        for number, image in enumerate(self.not_images, 1):
            items[f"not_image_{number}"] = (Item(image=checked_image("`not_images`", image)),)
        object.__setattr__(self, "items", items)
        texts = ("text", "not_text_")
        kinds = {name: Modality.TEXT if name.startswith(texts) else Modality.IMAGE for name in items}
        object.__setattr__(self, "branches", kinds)
        object.__setattr__(self, "is_composed", "text" in items and "image" in items)

    def parts(self) -> Mapping[str, tuple[Item, ...]]:
        """The value of `items`."""
        return self.items


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def checked_text(name: str, value: object) -> str:
    """A sentence without white space around it, and with U+FFFD for what no tokenizer reads.

    Raises:
        QueryError: It is not a text, or empty.
    """
    if not isinstance(value, str):
        raise QueryError(f"{name} is {described(value)}; it must be a text.")
    text = value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-16", "surrogatepass")
    cleaned = text.decode("utf-16", "replace").strip()
    if not cleaned:
        raise QueryError(f"{name} is empty.", "Leave it out instead.")
    return cleaned


def checked_image(name: str, value: object) -> ImageSource:
    """An image as a query takes it: a path, bytes or a PIL image.

    Raises:
        QueryError: It is none of these; nothing is fetched from a URL.
    """
    if isinstance(value, str) and value.startswith("data:"):
        raise QueryError(f"{name} is {value[:40]!r}...; it must be a path, bytes or a PIL image.", "Give its bytes.")
    if (url := url_in(value)) is not None:
        raise QueryError(
            f"{name} is the URL {url}. URLs are not fetched.", "Download it and give the file or its bytes."
        )
    if isinstance(value, str):
        if not value:
            raise QueryError(f"{name} is an empty path.", "Leave it out instead.")
        if "\0" in value:
            raise QueryError(f"{name} is {value[:80]!r}; a path cannot contain NUL.")
        return Path(value)
    if isinstance(value, bytes | Path):
        return value
    # Arrays are recognized by their shape: importing Pillow would cost every `import retrieval.query` 50 ms.
    if hasattr(value, "getbands"):
        return value  # type: ignore[return-value]
    remedy = "Write PIL.Image.fromarray(...)." if hasattr(value, "__array_interface__") else None
    raise QueryError(f"{name} is {described(value)}; it must be a path, bytes or a PIL image.", remedy)
