"""The options of `search`, made of the fields of a `SearchRequest`, and its errors with the names of options.

A field is declared once, in `retrieval/request.py`; here it gets its flag. What this module does not know: what a
field means.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from indexer.errors import FilterError, RequestError, UnderdrawingError
from pipelines.terminal.console import shortened
from retrieval.fields import FieldInfo, Group, Kind
from retrieval.request import SearchRequest, fields_of

FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "not_texts": ("--not",),
    "not_images": ("--not-image",),
    "wordings": ("--wording",),
    "modalities": ("--modality",),
    "k": ("-k", "--k"),
    "weights": ("--weight",),
    "pseudo_target_count": ("--images",),
}
"""The options of fields that are not called as their field is."""
MORE: Final[Mapping[str, str]] = {"method": "underdrawing doctor --methods lists all."}
"""What the command line has to add to the help of a field."""
FORMER: Final[Mapping[str, str]] = {"center": "--centre"}
"""Options of the last releases that still work and are no longer shown."""
WEIGHT_FLAGS: Final[Mapping[str, str]] = {
    "image": "Of the reference in sum, inversion, cig; the same as --weight image=X.",
    "text": "Of the text in sum; the same as --weight text=X.",
}
"""Weights with an option of their own."""
FLAGS_OF_ARGUMENTS: Final[Mapping[str, str]] = {
    name: f"--{name.replace('_', '-')}"
    for name in ("database", "image_column", "max_pixels", "model", "prune_most", "replace", "text_column", "trust")
}
"""The options of arguments of the library that are no fields of a request."""
NOT_ASKED: Final = ("collection",)
"""Fields that a command of one collection does not need."""

_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.TEXT: str | None,
    Kind.TEXTS: list[str] | None,
    Kind.NAME: str | None,
    Kind.NAMES: list[str] | None,
    Kind.IMAGE: Path | None,
    Kind.IMAGES: list[Path] | None,
    Kind.WHOLE: int | None,
    Kind.NUMBER: float | None,
    Kind.FLAG: bool,
    Kind.FILTER: str | None,
    Kind.WEIGHTS: list[str] | None,
    Kind.MODEL: str | None,
    Kind.PART: str | None,
}
_FIELD: Final = re.compile(r"`(\w+)(?:=([^`]*))?`")
WHERE_EXAMPLE: Final = (
    """A filter is a JSON object, quoted for the shell: --where '{"year": {"$gte": 2020}, "camera": "NIKON D850"}'"""
)


def taking_request(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of a request in the place of its parameter `request`.

    The errors of the request, and of the command, name options in place of fields.
    """
    own = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for each in own.parameters.values():
        parameters.extend(_parameters() if each.name == "request" else [each.replace(kind=each.KEYWORD_ONLY)])

    @wraps(command)
    def run(**values: Any) -> None:
        with naming_options():
            request = _request(values)
            command(request=request, **values)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@contextmanager
def naming_options() -> Iterator[None]:
    """Within this block errors name options where the library names fields."""
    try:
        yield
    except UnderdrawingError as error:
        error.message = with_options(error.message)
        error.remedy = None if error.remedy is None else with_options(error.remedy)
        raise


def with_options(sentence: str) -> str:
    """The sentence with `--not-image` for `` `not_images` ``, and `--method cig` for `` `method=cig` ``."""
    return _FIELD.sub(_option, sentence)


def _option(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    known = fields_of(SearchRequest)
    if name in FLAGS_OF_ARGUMENTS:
        flag = FLAGS_OF_ARGUMENTS[name]
        return flag if value in (None, "True") else f"{flag} {value}"
    if name not in known:
        return found[0]
    flag = "TEXT" if name == "text" else flags_of(name)[-1]
    return f"{flag} {value}" if value and known[name].kind is not Kind.FLAG else flag


def flags_of(field: str) -> tuple[str, ...]:
    """The options of a field."""
    return FLAGS.get(field, (f"--{field.replace('_', '-')}",))


def _parameters() -> list[inspect.Parameter]:
    """A keyword for each field, and one for each option that is no field of its own."""
    known = fields_of(SearchRequest)
    defaults = {each.name: each.default for each in fields(SearchRequest)}
    made = [_keyword("text", str | None, typer.Argument(metavar="TEXT", help=known["text"].help))]
    for group in Group:
        for name, info in known.items():
            if info.group is group and name not in (*NOT_ASKED, "text"):
                default = defaults[name] if defaults[name] not in ((), MISSING) else None
                made.append(_keyword(name, _type(info, default), _shown(name, info), default))
                if name in FORMER:
                    hidden = typer.Option(FORMER[name], metavar=info.metavar, hidden=True)
                    made.append(_keyword(f"former_{name}", _TYPES[info.kind], hidden))
                if info.kind is Kind.WEIGHTS:
                    for weight, help in WEIGHT_FLAGS.items():
                        flag = typer.Option(f"--{weight}-weight", metavar="X", help=help, rich_help_panel=group.value)
                        made.append(_keyword(f"{weight}_weight", float | None, flag))
    return made


def _keyword(name: str, kind: Any, option: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _type(info: FieldInfo, default: Any) -> Any:
    return _TYPES[info.kind] if default is None else type(default)


def _shown(name: str, info: FieldInfo) -> Any:
    help = " ".join([info.help, *([MORE[name]] if name in MORE else [])])
    return typer.Option(*flags_of(name), metavar=info.metavar, help=help, rich_help_panel=info.group.value)


def _request(values: dict[str, Any]) -> SearchRequest:
    """The request of the values of options, which are taken out of them."""
    given: dict[str, Any] = {}
    for name, info in fields_of(SearchRequest).items():
        if name in NOT_ASKED:
            continue
        value = values.pop(name, None)
        if (former := values.pop(f"former_{name}", None)) is not None:
            value = former
        if value is not None:
            given[name] = _READ.get(info.kind, _as_it_is)(value)
    for weight in WEIGHT_FLAGS:
        if (number := values.pop(f"{weight}_weight")) is not None:
            given.setdefault("weights", {})[weight] = number
    return SearchRequest(**given)


def _as_it_is(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _weights(values: list[str]) -> dict[str, float]:
    weights = {}
    for each in values:
        name, _, number = each.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise RequestError(
                "weights", f"`weights` is {each[:80]!r}; it is a name and a number.", "Write --weight image=0.7."
            ) from None
    return weights


def _where(value: str) -> Any:
    """The filter in a `--where`; what it means is looked at when it is compiled.

    Raises:
        FilterError: It is not JSON; it says where, and shows one that is.
    """
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        cause = f"{error.msg.lower()} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        cause = str(error)
    raise FilterError(f"--where is not JSON: {cause}: {shortened(value, 80)}", WHERE_EXAMPLE)


_READ: Final[Mapping[Kind, Callable[[Any], Any]]] = {Kind.FILTER: _where, Kind.WEIGHTS: _weights}
