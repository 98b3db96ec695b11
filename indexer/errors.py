"""Every error this project raises on purpose, in one tree.

    UnderdrawingError                  carries a remedy; the command line prints both and no traceback
    ├── CallError                      the call is wrong (exit code 2)
    │   ├── UnknownNameError           a mode, method, model or option that does not exist; names those that do
    │   ├── QueryError                 a query that cannot be asked
    │   └── FilterError                a `where` that does not parse
    ├── MissingExtraError              an optional package is needed; carries its pip line
    ├── PluginError                    a plugin cannot be imported, or its name is taken
    ├── ItemError                      one item cannot be used; becomes a reject, never stops a job
    ├── RejectedError                  nothing that a call gave could be stored; carries the rejects
    ├── ItemsError                     several ItemErrors of one call, with their positions
    ├── ModelError                     a model cannot be found, fetched or loaded
    ├── DeviceError                    a device for models or indexes is missing or failed
    ├── GeneratorError                 a pseudo-target could not be generated
    ├── WritingError                   a caption or a sentence could not be written
    │   └── WriterAwayError            the language model cannot be reached, for any text
    └── StoreError                     something about a collection
        ├── CollectionNotFoundError    there is no collection
        ├── LockedError                another writer holds it
        ├── SpaceMismatchError         made with another model
        ├── UntrustedModelError        only the collection names its model's path
        ├── FormatError                written by a newer release
        ├── CorruptionError            a file or a row is damaged
        └── SnapshotGoneError          the pinned generation was compacted away; open a new snapshot

What this module does not know: where an error is shown. Errors of other libraries are mapped where they arise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.types import Rejected


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The most likely intended names, nearest first; empty if nothing is near."""
    from difflib import get_close_matches  # imported here: only a mistake needs it

    folded = {each.casefold(): each for each in known}
    return [folded[each] for each in get_close_matches(name[:200].casefold(), folded, most, 0.6)]


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`Did you mean 'slerp'? Known: image, slerp, text`: the remedy for an unknown name."""
    near = nearest(name, known, 2)
    meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"{meant}Known: {', '.join(known) or 'none'}"


class UnderdrawingError(Exception):
    """Base of all errors. `message` says what happened to which object; `remedy` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class CallError(UnderdrawingError):
    """The call itself is wrong; nothing was done."""

    exit_code = 2


class UnknownNameError(CallError):
    """A name outside a closed set. The message lists the set."""

    def __init__(self, kind: str, name: object, known: list[str]) -> None:
        super().__init__(f"{kind} {str(name)[:200]!r} is not known.", f"{did_you_mean(str(name), known)}.")
        self.known = known


class QueryError(CallError):
    """An invalid query: it has no part, lacks a part that its method needs, or asks for a k below 1."""


class RequestError(QueryError):
    """A field of a search request that cannot be used; `field` names it."""

    def __init__(self, field: str, message: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.field = field

    def __reduce__(self) -> tuple[type[RequestError], tuple[str, str, str | None]]:
        return (type(self), (self.field, self.message, self.remedy))


class FilterError(CallError):
    """A `where` that does not parse: unknown operator, wrong operand, bad field name."""


class MissingExtraError(UnderdrawingError):
    """An optional package is missing. The remedy is the pip line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            f"Run: pip install 'underdrawing[{extra}]'",
        )


class PluginError(UnderdrawingError):
    """A part that another package offers by an entry point cannot be used. The message names package and reason."""


class ItemError(UnderdrawingError):
    """One item cannot be used.

    Args:
        reason: A short stable code for counting, such as `truncated` or `too-large`.
        detail: One sentence with the numbers.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ItemError], tuple[str, str]]:
        # Errors cross process borders when decode workers report them; by default they are rebuilt from `args` only.
        return (type(self), (self.reason, self.detail))


class ItemsError(UnderdrawingError):
    """Some items of one call cannot be used; `errors` maps their positions to the reasons."""

    def __init__(self, errors: Mapping[int, ItemError], total: int) -> None:
        first = min(errors)
        super().__init__(
            f"{len(errors)} of {total} items cannot be embedded; item {first}: {errors[first].detail}",
            "Drop them, or call try_encode, which returns the good rows and the errors separately.",
        )
        self.errors = dict(errors)


class RejectedError(UnderdrawingError):
    """None of a call's documents could be stored; `rejected` has the reasons, in the order given."""

    def __init__(self, message: str, rejected: Sequence[Rejected]) -> None:
        super().__init__(message, "Correct them; or pass skip_rejected=True to get the rejects back without an error.")
        self.rejected = list(rejected)


class ModelError(UnderdrawingError):
    """A model cannot be found, fetched or loaded."""


class DeviceError(UnderdrawingError):
    """A device is missing or failed. If an index was to use it, the CPU is searched instead and a note says so."""


class GeneratorError(UnderdrawingError):
    """A pseudo-target could not be generated. Retrieval goes on without it and says so."""


class WritingError(UnderdrawingError):
    """A caption or a sentence could not be written. Retrieval goes on without it and says so."""


class WriterAwayError(WritingError):
    """The language model cannot be reached: its endpoint is missing, or refuses the key or the model."""


class StoreError(UnderdrawingError):
    """Something about a collection."""


class CollectionNotFoundError(StoreError):
    """No collection at the path given."""

    exit_code = 2


class LockedError(StoreError):
    """Another writer holds the collection; the message names that writer."""


class SpaceMismatchError(StoreError):
    """The collection was made with another model, other weights or other preprocessing."""


class UntrustedModelError(StoreError):
    """The collection names its model by a path that the caller neither named nor trusts."""

    exit_code = 2


class FormatError(StoreError):
    """The collection's format is newer than this release reads."""


class CorruptionError(StoreError):
    """A file or row of the collection is damaged; the message names it."""


class SnapshotGoneError(StoreError):
    """The pinned generation no longer exists on disk: it was compacted away. Open a new snapshot."""


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of another library's error, without a full stop, to quote in a message."""
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0][:most].rstrip(". ")
