"""The methods by name. To add one, write a file in this folder with a class for each of its names.

Every class with a `name` in one of these files is a method. Other packages add theirs by entry points of the
group `underdrawing.methods`, or in code: `@METHODS.register("mine")`.

    load_method("cig-product")      an instance
    METHODS.help()                  every name with a line about it

What this module does not know: any method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias

from indexer.errors import PluginError, UnderdrawingError
from indexer.registry import Builtin, Registry
from indexer.types import HelpfulEnum
from retrieval.methods.base import (
    Artifacts,
    Composed,
    Helper,
    ReadsFields,
    Refining,
    Resolved,
    SearchMethod,
    Selective,
    Variant,
)
from retrieval.methods.weights import Tuned, load_weights

__all__ = [
    "METHODS",
    "Artifacts",
    "Composed",
    "Helper",
    "Merge",
    "Method",
    "ReadsFields",
    "Refining",
    "Resolved",
    "SearchMethod",
    "Selective",
    "Tuned",
    "Variant",
    "load_method",
    "load_weights",
    "usable_methods",
    "variant_of",
]


class Method(HelpfulEnum):
    """Names of built-in methods, for code. An argument that takes one takes any name in `METHODS`, also as a `str`."""

    TEXT = "text"
    IMAGE = "image"
    SUM = "sum"
    SLERP = "slerp"
    PRODUCT = "product"
    SHIFT = "shift"
    INVERSION = "inversion"
    CIG = "cig"
    CAPTION = "caption"
    JOINT = "joint"


class Merge(HelpfulEnum):
    """How `cig` uses a pseudo-target; `cig` with a merge is the method `cig-MERGE`."""

    REINVERT = "reinvert"
    EMBED = "embed"
    PRODUCT = "product"


MethodFactory: TypeAlias = Callable[[], SearchMethod]


def _rooms() -> Iterator[tuple[str, Builtin]]:
    """Every method of this folder: its name, its location and its help line."""
    for module in iter_modules(__path__, f"{__name__}."):
        for attribute, value in vars(import_module(module.name)).items():
            name = vars(value).get("name") if isinstance(value, type) else None
            if isinstance(name, str) and value.__module__ == module.name:
                yield name, Builtin(f"{module.name}:{attribute}", value.help)


def _place(room: tuple[str, Builtin]) -> tuple[int, str]:
    """The names that `Method` has come first, as it has them, so that tables begin with the baselines."""
    known: list[str] = list(Method)
    base, _, merge = room[0].partition("-")
    name = base if merge and base in known else room[0]
    return known.index(name) if name in known else len(known), room[0]


METHODS = Registry[MethodFactory]("method", "underdrawing.methods", dict(sorted(_rooms(), key=_place)))
"""Methods by name; each is a class or another callable without arguments that returns a `SearchMethod`."""

_PROMISED = ("name", "help", "tuned", "reads", "defaults", "needs", "branches", "resolve", "compose")


def load_method(method: str, merge: str | None = None) -> SearchMethod:
    """The method of that name.

    Args:
        method: One of `METHODS`.
        merge: One of `Merge`: `cig` with a merge is the method `cig-MERGE`. Other methods do not read it.

    Raises:
        UnknownNameError: There is none; the message lists the known ones.
        PluginError: The package that offers it cannot be imported, or offers something else.
    """
    if not isinstance(method, str):
        Method(method)  # says what a name is
    name = f"{method}-{Merge(merge).value}" if method == "cig" and merge is not None else str(method)
    factory = METHODS.get(name)
    try:
        made = factory()
    except UnderdrawingError:
        raise
    except Exception as error:  # another package's code, which may raise anything
        raise METHODS.failure(name, factory, error) or error from error
    if lacking := [each for each in _PROMISED if not hasattr(made, each)]:
        raise PluginError(f"The method {name!r} is a {type(made).__name__} without {', '.join(lacking)}.")
    return made


def usable_methods() -> dict[str, SearchMethod]:
    """An instance of every method that can be used, in the order of `METHODS`; a broken plugin is passed over."""
    found = {}
    for name in METHODS.names():
        try:
            found[name] = load_method(name)
        except UnderdrawingError:
            continue  # who asks for it by name is told why
    return found


def variant_of(method: SearchMethod) -> str | None:
    """The name of the method of which this is a variant; None for one that stands for itself."""
    return method.variant_of if isinstance(method, Variant) and method.variant_of != method.name else None
