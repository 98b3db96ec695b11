"""Fields of a request: their descriptions for front ends, the checks of their values, and their JSON.

What this module does not know: which fields there are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Final

from indexer.arguments import described, finite, flag, names, whole_number
from indexer.errors import CallError, RequestError, did_you_mean
from indexer.types import HelpfulEnum, JsonValue
from retrieval.query import Weights, checked_image, checked_text

REFINE: Final = "refine"
"""The trait of a method with a slow step that an answer can do without."""
NAMED: Final = "named"
"""The trait of no method: who reads such a field names it."""


class Group(HelpfulEnum):
    """Groups of fields, with their headings on a help page."""

    PARTS = "What to look for"
    METHOD = "How"
    RERANK = "Re-ranking"
    PSEUDO_TARGET = "Pseudo-words and pseudo-targets"
    CAPTION = "Captions"


class Kind(Enum):
    """Types of field values. Each has a check for Python values and a JSON schema below."""

    TEXT = "a text"
    TEXTS = "texts"
    NAME = "a name"
    NAMES = "names"
    IMAGE = "an image"
    IMAGES = "images"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "yes or no"
    FILTER = "a filter"
    WEIGHTS = "weights by name"
    MODEL = "a model, by name or folder"
    PART = "a part of a program by its name, with a file or model of this machine behind a colon"


@dataclass(frozen=True)
class FieldInfo:
    """Description of a field for front ends.

    Attributes:
        help: One or two sentences.
        group: The heading it is listed under.
        kind: The type of its values.
        metavar: The placeholder for its value in a help text.
        least: The smallest number allowed, for a number.
        trait: What methods have that read it: a helper model by its field's name, `REFINE`, or `NAMED`; empty where
            every method does. A method also reads the fields that it names (`ReadsFields`).
        among: The names that it takes, where that is a closed set.
        local: Whether it names a file, a model or a service of the machine that answers. Who asks from another machine
            cannot set it.
    """

    help: str
    group: Group
    kind: Kind
    metavar: str = ""
    least: int | None = None
    trait: str = ""
    among: type[HelpfulEnum] | None = None
    local: bool = False

    def schema(self, default: Any) -> dict[str, JsonValue]:
        """The JSON schema of its value."""
        one: dict[str, JsonValue] = dict(_SCHEMAS[self.kind])
        if self.among is not None:
            one["enum"] = [str(each) for each in self.among]
        if self.least is not None:
            one["minimum"] = self.least
        own: dict[str, JsonValue] = {"type": "array", "items": one} if self.kind in SEVERAL else one
        own["description"] = self.help
        return own if default is None or default == () else own | {"default": default}


def option(default: Any, kind: Kind, group: Group, help: str, metavar: str = "", **more: Any) -> Any:
    """A field of a frozen dataclass, declared with its `FieldInfo`."""
    return field(default=default, metadata={"info": FieldInfo(help, group, kind, metavar, **more)})


def checked(value: Any, name: str, info: FieldInfo) -> Any:
    """The value in the type of the field.

    Raises:
        RequestError: The field does not take it.
    """
    try:
        settled = _CHECKS[info.kind](value, f"`{name}`", info)
        if info.among is not None:
            for each in _several(settled):
                info.among(each)
        return settled
    except CallError as error:
        raise RequestError(name, error.message, error.remedy) from None


def _several(value: object) -> Sequence[Any]:
    """The values of a tuple or list; a single value is a list of one."""
    return value if isinstance(value, tuple | list) else (value,)


def _name(value: object, name: str, _: FieldInfo) -> str:
    if not isinstance(value, str) or not value:
        raise CallError(f"{name} is {described(value)}; it must be a name.")
    return value


def _whole(value: object, name: str, info: FieldInfo) -> int:
    return whole_number(value, name, info.least or 0)


def _number(value: object, name: str, info: FieldInfo) -> float:
    number = finite(value, name, infinite=True)
    if info.least is not None and number < info.least:
        raise CallError(f"{name} is {number:g}; it must be at least {info.least}.")
    return number


def _weights(value: object, name: str, _: FieldInfo) -> Weights:
    if isinstance(value, Weights):
        return value
    if not isinstance(value, Mapping):
        raise CallError(f"{name} is {described(value)}; it maps names of weights to numbers.")
    known = [each.name for each in fields(Weights)]
    for weight in value:
        if weight not in known:
            raise CallError(f"{name} has no {str(weight)[:80]!r}.", f"{did_you_mean(str(weight), known)}.")
    return Weights(**value)


def _model(value: object, name: str, _: FieldInfo) -> Any:
    if value == "":
        raise CallError(f"{name} is empty.", "Leave it out instead.")
    return value  # a name, a folder, or the model itself


_CHECKS: Final[Mapping[Kind, Callable[[Any, str, FieldInfo], Any]]] = {
    Kind.TEXT: lambda value, name, _: checked_text(name, value),
    Kind.TEXTS: lambda value, name, _: tuple(checked_text(name, each) for each in _several(value)),
    Kind.NAME: _name,
    Kind.NAMES: lambda value, name, _: names(_several(value), name),
    Kind.IMAGE: lambda value, name, _: checked_image(name, value),
    Kind.IMAGES: lambda value, name, _: tuple(checked_image(name, each) for each in _several(value)),
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.FLAG: lambda value, name, _: flag(value, name),
    Kind.FILTER: lambda value, *_: value,  # its meaning is checked when it is compiled, which raises FilterError
    Kind.WEIGHTS: _weights,
    Kind.MODEL: _model,
    Kind.PART: _name,
}

SEVERAL: Final = (Kind.TEXTS, Kind.NAMES, Kind.IMAGES)
"""Kinds of fields that take any number of values."""
_STRING: Final[Mapping[str, JsonValue]] = {"type": "string"}
_IMAGE: Final[Mapping[str, JsonValue]] = {"type": "string", "contentEncoding": "base64"}
_SCHEMAS: Final[Mapping[Kind, Mapping[str, JsonValue]]] = {
    Kind.TEXT: _STRING,
    Kind.TEXTS: _STRING,
    Kind.NAME: _STRING,
    Kind.NAMES: _STRING,
    Kind.IMAGE: _IMAGE,
    Kind.IMAGES: _IMAGE,
    Kind.WHOLE: {"type": "integer"},
    Kind.NUMBER: {"type": "number"},
    Kind.FLAG: {"type": "boolean"},
    Kind.FILTER: {"type": "object"},
    Kind.WEIGHTS: {
        "type": "object",
        "properties": {each.name: {"type": "number"} for each in fields(Weights)},
        "additionalProperties": False,
    },
    Kind.MODEL: _STRING,
    Kind.PART: _STRING,
}
"""The schema of one value, by kind."""


def from_json(value: Any, name: str, info: FieldInfo, *, local: bool) -> Any:
    """A JSON value as a Python value: images are decoded from base64, anything else is unchanged.

    Raises:
        RequestError: It is not an image in base64; or it names a file, model or service of this machine and `local` is
            false.
    """
    if not local and (info.local or info.kind is Kind.PART and ":" in str(value)):
        raise RequestError(name, f"`{name}` is {described(value)}, which can only be set where the service is started.")
    if info.kind is Kind.IMAGE:
        return _decoded(value, name)
    if info.kind is Kind.IMAGES:
        return tuple(_decoded(each, name) for each in _several(value))
    return value


def _decoded(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise RequestError(name, f"`{name}` is {described(value)}; it must be an encoded image file in base64.")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RequestError(
            name, f"`{name}` is {value[:40]!r}, which is not base64.", "Send the bytes of an image file in base64."
        ) from None
