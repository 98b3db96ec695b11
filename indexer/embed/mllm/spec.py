"""Frozen input specs of multimodal language models: what is needed to reproduce their authors' vectors.

`SPECS` holds the published ones, read from their authors' inference code. A model trained here has its own in
`underdrawing.json`, in its folder. Options after a name override it: `mllm:NAME?dim=512&positions=sequential`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from indexer.embed.model_files import read_json
from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.types import HelpfulEnum, Modality, Role

SPEC_FILE = "underdrawing.json"
PLACES = ("{instruction}", "{image}", "{text}")


class Positions(HelpfulEnum):
    """How positions of tokens are numbered for the rotary embedding of the language model."""

    MROPE = "mrope"  # an image's tokens by time, height and width (Qwen2-VL, section 2.1)
    SEQUENTIAL = "sequential"  # consecutively on all three axes, as in GME's code


class FullStop(HelpfulEnum):
    """What is added to an instruction that does not end like a sentence."""

    NONE = "none"
    DOT = "dot"  # "." unless it ends with "."
    PUNCTUATION = "punctuation"  # "." unless it ends with any punctuation


class Padding(HelpfulEnum):
    """The side on which a batch is padded. Vectors depend on it only in their last digits."""

    RIGHT = "right"
    LEFT = "left"


class ImageBackend(HelpfulEnum):
    """What resizes images. The two differ in the last gray levels, so vectors depend on it slightly."""

    PIL = "pil"
    TORCHVISION = "torchvision"


class Sizing(HelpfulEnum):
    """Whose rule determines an image's size when it is first resized. They differ only for long and narrow images."""

    TRANSFORMERS = "transformers"  # sides are rounded to a multiple of a token, down to none
    UTILS = "utils"  # qwen_vl_utils: a side has at least one token
    GME = "gme"  # the same, but an image that is too narrow is squeezed to `aspect_limit` instead of refused


class Parity(HelpfulEnum):
    """Whether to read items better than the published scripts, or exactly like them."""

    OWN = "own"  # upright images on a visible background; a long item keeps the template's end
    AUTHORS = "authors"  # images as stored; a long item is cut at its end, whatever is there


@dataclass(frozen=True)
class MllmSpec:
    """How items become vectors.

    Attributes:
        template: The prompt, with places `{instruction}`, `{image}` and `{text}`. `{image}` is left out, with its start
            and end tokens, if there is no image. The vector is the last token's.
        query_instruction: Default for queries.
        fused_instruction: Default for queries with text and image; None for `query_instruction`.
        document_instruction: For documents.
        full_stop: What is added to an instruction.
        positions: How tokens are numbered.
        resizes: The smallest and largest number of pixels of an image; one pair for each time that it is resized.
        max_tokens: Tokens of an item; a longer one loses the end of its text.
        aspect_limit: Limit of the longer side over the shorter: other images are refused, or squeezed by some `sizing`.
        sizing: Whose rule determines an image's size.
        parity: Whether images and long items are read as this project or as the model's authors do.
        padding: The side on which a batch is padded.
        backend: What resizes images.
        shorter: Whether it was trained so that the first numbers of a vector are a vector, too (Matryoshka).
        dim: How many numbers of the vector are used; None for all.
    """

    template: str
    query_instruction: str
    document_instruction: str
    fused_instruction: str | None = None
    full_stop: FullStop = FullStop.NONE
    positions: Positions = Positions.MROPE
    resizes: tuple[tuple[int, int], ...] = ((56 * 56, 28 * 28 * 1280),)
    max_tokens: int = 4096
    aspect_limit: float = 200.0
    sizing: Sizing = Sizing.TRANSFORMERS
    parity: Parity = Parity.OWN
    padding: Padding = Padding.RIGHT
    backend: ImageBackend = ImageBackend.PIL
    shorter: bool = False
    dim: int | None = None

    def __post_init__(self) -> None:
        for name, kind in _ENUMS.items():
            object.__setattr__(self, name, kind(getattr(self, name)))
        object.__setattr__(self, "resizes", tuple((int(least), int(most)) for least, most in self.resizes))
        for place in PLACES:
            if self.template.count(place) != 1:
                raise CallError(f"The template needs {place} once: {self.template!r}.")
        if self.max_tokens < 1 or self.aspect_limit <= 1 or not self.resizes:
            raise CallError("max_tokens must be at least 1, aspect_limit above 1, and resizes not empty.")
        if any(not 0 < least <= most for least, most in self.resizes):
            raise CallError(
                f"The bounds of an image's pixels are {self.resizes}; they must be a smallest and a largest."
            )
        if self.dim is not None and self.dim < 1:
            raise CallError(f"dim is {self.dim}; a vector has at least one number.")

    def instruction(self, role: Role, modality: Modality, asked: str | None) -> str:
        """The instruction as the model reads it: the given one or the default, with its full stop.

        Documents always use their own, so that stored vectors fit every query.
        """
        if role is Role.DOCUMENT:
            text = self.document_instruction
        elif asked is not None:
            text = asked.strip()
        else:
            fused = modality is Modality.FUSED and self.fused_instruction is not None
            text = str(self.fused_instruction) if fused else self.query_instruction
        return _stopped(text, self.full_stop)

    def to_json(self) -> dict[str, Any]:
        """The JSON object stored in a model's folder."""
        return {key: list(map(list, value)) if key == "resizes" else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Any, source: str) -> MllmSpec:
        """Read what `to_json` gave.

        Raises:
            ModelError: It is not such an object, or a value is invalid.
        """
        known = [field.name for field in fields(cls)]
        try:
            if not isinstance(values, Mapping):
                raise CallError(f"It is a {type(values).__name__}, not an object.")
            for key in values:
                if key not in known:
                    raise UnknownNameError("key", key, known)
            return cls(**values)
        except (CallError, TypeError, ValueError) as error:
            raise ModelError(f"The spec in {source} cannot be used: {error}") from error

    def with_options(self, options: Mapping[str, str]) -> MllmSpec:
        """This spec with the options after the model's name applied.

        Raises:
            UnknownNameError: No such option, or no such value.
            CallError: A value is invalid, or the model was not trained for shorter vectors.
        """
        changes: dict[str, Any] = {"resizes": self.resizes}
        for key, value in options.items():
            if key not in OPTIONS:
                raise UnknownNameError("option", key, sorted(OPTIONS))
            if key in ("max_pixels", "min_pixels"):
                changes["resizes"] = _bounded(changes["resizes"], key, _number(key, value))
            else:
                changes[key] = _ENUMS[key](value) if key in _ENUMS else _number(key, value)
        return replace(self, **changes)


_ENUMS: dict[str, type[HelpfulEnum]] = {
    "full_stop": FullStop, "positions": Positions, "padding": Padding, "backend": ImageBackend, "sizing": Sizing,
    "parity": Parity,
}  # fmt: skip
OPTIONS = frozenset(
    {
        "backend",
        "dim",
        "full_stop",
        "max_pixels",
        "max_tokens",
        "min_pixels",
        "padding",
        "parity",
        "positions",
        "sizing",
    }  # fmt: skip
)

_CHAT = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{image}{text}<|im_end|>\n<|im_start|>assistant\n"
)

GME = MllmSpec(
    template=_CHAT + "<|endoftext|>",
    query_instruction="You are a helpful assistant.",
    document_instruction="You are a helpful assistant.",
    positions=Positions.SEQUENTIAL,
    resizes=((4 * 28 * 28, 16384 * 28 * 28), (256 * 28 * 28, 1280 * 28 * 28)),  # once when reading, once for the model
    max_tokens=1800,
    sizing=Sizing.GME,
)
"""Zhang et al., "GME", CVPR 2025, arXiv:2412.16855, and the inference code published with the checkpoints.

That code leaves instructions unchanged. mteb's wrapper ends them with a full stop: `?full_stop=dot`.
"""

QWEN3_VL_EMBEDDING = MllmSpec(
    # The tokenizer of these checkpoints ends every text with a token, which is added to this.
    template=_CHAT,
    query_instruction="Represent the user's input.",
    document_instruction="Represent the user's input.",
    full_stop=FullStop.PUNCTUATION,
    resizes=((4 * 32 * 32, 1800 * 32 * 32),),
    sizing=Sizing.UTILS,
    max_tokens=8192,
    shorter=True,
)
"""Li et al., "Qwen3-VL-Embedding", arXiv:2601.04720, and the inference code in its repository."""

SPECS: dict[str, MllmSpec] = {
    "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": GME,
    "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct": GME,
    "Qwen/Qwen3-VL-Embedding-2B": QWEN3_VL_EMBEDDING,
    "Qwen/Qwen3-VL-Embedding-8B": QWEN3_VL_EMBEDDING,
}


@dataclass(frozen=True)
class MllmName:
    """The parts of `SOURCE[@REVISION][?KEY=VALUE&KEY=VALUE]`.

    Attributes:
        source: A folder or a hub id.
        revision: Revision of a hub id, or None for the newest.
        options: Overrides of the spec; the option `spec` names one of `SPECS`.
    """

    source: str
    revision: str | None
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> MllmName:
        """Parse a name.

        Raises:
            CallError: An option is not KEY=VALUE.
        """
        source, _, tail = text.partition("?")
        options = {}
        for each in filter(None, tail.split("&")):
            key, equals, value = each.partition("=")
            if not equals or not key or not value:
                raise CallError(f"{each!r} after the model's name is not an option.", "Write ?KEY=VALUE&KEY=VALUE.")
            options[key] = value
        revision = None
        if not Path(source).is_dir() and "@" in source:
            source, _, revision = source.rpartition("@")
        return cls(source, revision, options)

    def spec(self, folder: Path) -> MllmSpec:
        """The spec: the named one, else the folder's own, else the one known by the model's name.

        Raises:
            ModelError: There is none.
            UnknownNameError: No spec of that name, or no such option.
        """
        options = dict(self.options)
        named = options.pop("spec", None)
        file = folder / SPEC_FILE
        if named is not None:
            if named not in SPECS:
                raise UnknownNameError("spec", named, sorted(SPECS))
            found = SPECS[named]
        elif file.exists():
            found = MllmSpec.from_json(read_json(file, "description of a model's input"), str(file))
        else:
            known = {name.rpartition("/")[2]: spec for name, spec in SPECS.items()}
            model = self.source.rstrip("/").rpartition("/")[2]
            if model not in known:
                raise ModelError(
                    f"The input format of {self.source} is unknown: it has no {SPEC_FILE}, and its name is not "
                    f"one of {', '.join(SPECS)}.",
                    f"Name the one that it was trained with, such as mllm:{self.source}?spec={next(iter(SPECS))}, or "
                    f"write {SPEC_FILE}.",
                )
            found = known[model]
        return found.with_options(options)


def _stopped(text: str, rule: FullStop) -> str:
    if not text or rule is FullStop.NONE or text.endswith("."):
        return text
    if rule is FullStop.PUNCTUATION and unicodedata.category(text[-1]).startswith("P"):
        return text
    return text + "."


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise CallError(f"The option {key} is {value!r}; it must be a whole number of at least 1.")
    return int(value)


def _bounded(resizes: tuple[tuple[int, int], ...], key: str, value: int) -> tuple[tuple[int, int], ...]:
    """The last pair of bounds with one of them changed, and the other moved if it would be crossed."""
    *others, (least, most) = resizes
    last = (min(least, value), value) if key == "max_pixels" else (value, max(most, value))
    return (*others, last)
