"""What a generator of pseudo-targets promises.

What this module does not know: any model, how drawings are searched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from indexer.errors import QueryError
from indexer.types import JsonValue
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class GenerateOptions:
    """How pseudo-targets are drawn. What is None is as the generator has it.

    Attributes:
        steps: Denoising steps; each is one network evaluation, or two with guidance.
        guidance: Classifier-free guidance scale; up to 1 there is none.
        size: Width and height in pixels.
        negative: What the pictures should not show; read with guidance only.
        images: Pictures for each query; their features are averaged.
        seed: Of the noise. Picture n of any query starts from noise (seed, n), whatever is drawn beside it.
    """

    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    negative: str | None = None
    images: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "size", "images"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise QueryError(f"{name} is {value!r}; it must be a whole number of at least 1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**53:
            raise QueryError(f"The seed is {self.seed!r}; it must be a whole number from 0 to 2^53.")

    def over(self, defaults: GenerateOptions) -> GenerateOptions:
        """These options, and the defaults' where they say None."""
        mine = {name: value for name, value in asdict(self).items() if value is not None}
        return GenerateOptions(**(asdict(defaults) | mine))


@dataclass(frozen=True)
class PseudoTargetRequest:
    """What is to be drawn.

    Attributes:
        text: How the picture differs from the reference.
        features: The reference's feature, (dim,) float32, from each of `Generator.feature_models`, in order.
    """

    text: str
    features: tuple[Vector, ...]


@dataclass(frozen=True)
class PseudoTarget:
    """The pictures of one request.

    Attributes:
        images: RGB pictures; those that came out black or not a number are missing.
        failed: Why pictures are missing, or None.
    """

    images: tuple[Image, ...]
    failed: str | None = None


class Generator(Protocol):
    """Draws pseudo-targets."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    @property
    def feature_models(self) -> Sequence[tuple[str, bool]]:
        """The embedders whose picture features it reads, by name, and whether as unit vectors."""
        ...

    @property
    def defaults(self) -> GenerateOptions:
        """What is drawn with where nothing else is told; no field but `negative` is None."""
        ...

    def identity(self, options: GenerateOptions) -> Mapping[str, JsonValue]:
        """All that a drawing depends on besides its request; a cache's key is made of it."""
        ...

    def generate(self, requests: Sequence[PseudoTargetRequest], options: GenerateOptions) -> list[PseudoTarget]:
        """The drawings, in order. A request's drawing does not depend on the others.

        Raises:
            GeneratorError: Nothing could be drawn, such as for want of memory.
        """
        ...
