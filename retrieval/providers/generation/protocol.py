"""The protocol of generators of pseudo-targets, with their options, requests and results.

What this module does not know: any model, how pseudo-targets are searched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from indexer.deprecation import warn_renamed
from indexer.errors import GeneratorError, QueryError
from indexer.types import JsonValue
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class GenerateOptions:
    """How pseudo-targets are generated. Fields that are None have the generator's defaults.

    Attributes:
        steps: Denoising steps; each is one network evaluation, or two with guidance.
        guidance: Classifier-free guidance scale; values up to 1 turn it off.
        size: Width and height in pixels.
        negative: What the images should not show; read only with guidance.
        images: Images for each query; their features are averaged.
        seed: Seed of the noise. Image n of any query starts from noise (seed, n), whatever else is in the batch.
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
        """These options, with the defaults for those that are None."""
        mine = {name: value for name, value in asdict(self).items() if value is not None}
        return GenerateOptions(**(asdict(defaults) | mine))


@dataclass(frozen=True)
class PseudoTargetRequest:
    """A request for the images of one query.

    Attributes:
        text: How the image differs from the reference.
        features: The reference's feature, (dim,) float32, from each of `Generator.feature_models`, in order.
    """

    text: str
    features: tuple[Vector, ...]


@dataclass(frozen=True)
class PseudoTarget:
    """The images of one request.

    Attributes:
        images: RGB images; those that came out black or with NaN are missing.
        failed: Why images are missing, or None.
    """

    images: tuple[Image, ...]
    failed: str | None = None


class Generator(Protocol):
    """Generates pseudo-targets."""

    @property
    def name(self) -> str:
        """The name it was loaded by."""
        ...

    @property
    def feature_models(self) -> Sequence[tuple[str, bool]]:
        """The embedders whose image features it reads, by name, and whether as unit vectors."""
        ...

    @property
    def defaults(self) -> GenerateOptions:
        """The default options; only `negative` may be None."""
        ...

    def identity(self, options: GenerateOptions) -> Mapping[str, JsonValue]:
        """Everything that a pseudo-target depends on besides its request; part of the cache key."""
        ...

    def generate(self, requests: Sequence[PseudoTargetRequest], options: GenerateOptions) -> list[PseudoTarget]:
        """The pseudo-targets, in order. A request's does not depend on the others.

        Raises:
            GeneratorError: Nothing could be generated, for lack of memory for example.
        """
        ...


def generate_each(
    generator: Generator, requests: Sequence[PseudoTargetRequest], options: GenerateOptions
) -> list[PseudoTarget | GeneratorError]:
    """Generate a batch; if that fails, its halves, down to single requests, so that a failure costs one request."""
    if not hasattr(generator, "generate"):
        generator = _Former(generator)
    try:
        return list(generator.generate(requests, options))
    except GeneratorError as error:
        if len(requests) == 1:
            return [error]
    middle = len(requests) // 2
    return generate_each(generator, requests[:middle], options) + generate_each(generator, requests[middle:], options)


class _Former:
    """A generator written for a release in which `generate` was called `draw`."""

    def __init__(self, generator: Any) -> None:
        warn_renamed(f"{type(generator).__name__}.draw", "Generator.generate", stacklevel=4)
        self.name = generator.name
        self.feature_models = generator.feature_models
        self.defaults = generator.defaults
        self.identity = generator.identity
        self.generate = generator.draw
