"""Registry of interchangeable parts by name: built-in ones, ones registered in code, and plugins of other packages.

    METHODS = Registry[Method]("method", "underdrawing.methods", {
        "sum": Builtin("retrieval.methods.linear:SumMethod", "weighted sum of both vectors"),
    })
    METHODS.get("sum")          imports retrieval.methods.linear
    METHODS.names()             imports nothing

A package offers a part by an entry point of the registry's group; its `pyproject.toml` says

    [project.entry-points."underdrawing.methods"]
    mine = "my_package.method:MyMethod"

Entry points are read if a name is neither built in nor registered, or if all names are requested. A broken plugin
affects only its own name: getting it raises a `PluginError`, and all others work. No plugin replaces a built-in name:
the built-in part is used, and `plugins()` reports the conflict.

What this module does not know: what the parts do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from traceback import walk_tb
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from indexer.errors import CallError, PluginError, UnknownNameError, first_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OURS = frozenset({"benchmarks", "indexer", "pipelines", "retrieval", "underdrawing"})
"""The packages of this project."""
MISUSE = (AttributeError, LookupError, TypeError, ValueError)
"""The errors that a part with a wrong signature or return value causes elsewhere."""
T = TypeVar("T")
_PART = TypeVar("_PART")


@dataclass(frozen=True)
class Builtin:
    """A built-in part: its location as `module:attribute`, and one line of help."""

    target: str
    help: str


@dataclass(frozen=True)
class Plugin:
    """A part that another package offers.

    Attributes:
        name: Its name.
        package: The package's name and version.
        target: Its location as `module:attribute`.
        help: The package's own summary.
        problem: Why it cannot be used, if that is known without importing it.
    """

    name: str
    package: str
    target: str
    help: str
    problem: str | None = None


class Registry(Generic[T]):
    """The registry of one kind of part. Threads may share one.

    Args:
        kind: The word for a part in messages, such as "method".
        group: The entry-point group of other packages' parts.
        builtin: The built-in parts, in the order in which they are listed.
        accepts: Whether an imported object can be such a part; by default any callable.
    """

    def __init__(
        self, kind: str, group: str, builtin: Mapping[str, Builtin], *, accepts: Callable[[object], bool] = callable
    ) -> None:
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._accepts = accepts
        self._registered: dict[str, tuple[T, str]] = {}
        self._imported: dict[str, T] = {}

    def get(self, name: str) -> T:
        """The part with a name, imported on first use.

        Raises:
            UnknownNameError: Nothing has that name; the message lists the nearest names and all names.
            PluginError: The part cannot be imported or used, or several packages offer the name.
            MissingExtraError: A built-in part needs a package that is not installed.
        """
        if name in self._registered:
            return self._registered[name][0]
        if name not in self._imported:
            self._imported[name] = self._import(name)
        return self._imported[name]

    def names(self) -> list[str]:
        """All names: built-in ones first, then registered ones, then plugins sorted by name. Nothing is imported."""
        return list(self.help())

    def help(self) -> dict[str, str]:
        """A line of help for each name, in the order of `names`. A plugin's line is its package's summary."""
        lines = {name: each.help for name, each in self._builtin.items()}
        lines |= {name: line for name, (_, line) in self._registered.items()}
        for plugin in self.plugins():
            lines.setdefault(plugin.name, f"{plugin.help} ({plugin.package})" if plugin.help else plugin.package)
        return lines

    def plugins(self) -> list[Plugin]:
        """All plugins, including those with conflicting names, sorted by name and package."""
        return [self._plugin(point) for name in sorted(self._points) for point in self._points[name]]

    def register(self, name: str, *, help: str = "") -> Callable[[_PART], _PART]:
        """Decorator that registers a part in this process: `@METHODS.register("mine")`.

        Args:
            name: Its name.
            help: One line of help; by default the first line of its docstring.

        Raises:
            CallError: The name is taken, or the object cannot be such a part.
        """
        taken = self._registered.get(name)
        if name in self._builtin or taken is not None:
            owner = self._builtin[name].target if name in self._builtin else repr(taken and taken[0])
            raise CallError(f"The {self.kind} {name!r} exists: it is {owner}.", "Register yours by another name.")

        def keep(part: _PART) -> _PART:
            if not self._accepts(part):
                raise CallError(f"{part!r} cannot be registered as the {self.kind} {name!r}: it is not a {self.kind}.")
            line = help or (part.__doc__ or "").strip().partition("\n")[0]
            self._registered[name] = (cast(T, part), line)
            return part

        return keep

    def failure(self, name: str, part: object, error: Exception) -> PluginError | None:
        """The error to raise for a failure inside another package's part, or None.

        It is None if the part is ours, or if the part did not cause the error: the error was not raised in the part's
        package and is not of a kind that a wrong signature or return value causes.

        Args:
            name: The name by which the part was requested; text after a colon is ignored.
            part: The part, or an object that it made.
            error: The error.
        """
        home = _home(part)
        if home in OURS or not (isinstance(error, MISUSE) or _raised_in(home, error)):
            return None
        family = name.partition(":")[0]
        packages = [each.package for each in self.plugins() if each.name == family or _top(each.target) == home]
        owner = f"the package {packages[0]}" if packages else f"the module {home}"
        return PluginError(
            f"The {self.kind} {family!r} of {owner} failed: {type(error).__name__}: {first_line(error)}.",
            "Report it to its authors, or do without it; everything else works.",
        )

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._registered or name in self._points

    @cached_property
    def _points(self) -> dict[str, list[EntryPoint]]:
        from importlib.metadata import entry_points  # here, since the import is slow

        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=_package):
            found.setdefault(point.name, []).append(point)
        return found

    def _plugin(self, point: EntryPoint) -> Plugin:
        return Plugin(point.name, _package(point), point.value, _summary(point), self._clash(point.name))

    def _clash(self, name: str) -> str | None:
        offering = ", ".join(f"{_package(point)} ({point.value})" for point in self._points[name])
        if name in self._builtin:
            return f"The {self.kind} {name!r} is built in ({self._builtin[name].target}); {offering} cannot replace it."
        if len(self._points[name]) > 1:
            return f"Several packages offer a {self.kind} {name!r}: {offering}."
        return None

    def _import(self, name: str) -> T:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].target.partition(":")
            return cast(T, getattr(import_module(module), attribute))
        if name not in self._points:
            raise UnknownNameError(self.kind, name, self.names())
        if (clash := self._clash(name)) is not None:
            raise PluginError(clash, "Uninstall one of them, or rename its entry point.")
        (point,) = self._points[name]
        return self._plugged(point)

    def _plugged(self, point: EntryPoint) -> T:
        offered = f"The {self.kind} {point.name!r} of the package {_package(point)} ({point.value})"
        remedy = "Update the package, or uninstall it; everything else works without it."
        try:
            part = point.load()
        except Exception as error:  # another package's code may raise anything
            raise PluginError(
                f"{offered} cannot be imported: {type(error).__name__}: {first_line(error)}.", remedy
            ) from error
        if not self._accepts(part):
            raise PluginError(
                f"{offered} is of type {type(part).__name__}, which cannot be used as a {self.kind}.", remedy
            )
        return cast(T, part)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


def _summary(point: EntryPoint) -> str:
    return point.dist.metadata["Summary"] if point.dist and "Summary" in point.dist.metadata else ""


def _home(part: object) -> str:
    """The package that a part's class or function is defined in."""
    own = part if hasattr(part, "__qualname__") else type(part)
    return _top(str(own.__module__))


def _top(module: str) -> str:
    return re.split(r"[.:]", module, maxsplit=1)[0]


def _raised_in(home: str, error: Exception) -> bool:
    return any(_top(str(frame.f_globals.get("__name__"))) == home for frame, _ in walk_tb(error.__traceback__))
