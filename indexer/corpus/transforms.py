"""Transforms by name: changes to a corpus's records on their way into a collection.

    fields:{"drop": ["price"], "rename": {"titel": "title"}, "set": {"shop": "north"}}
    text-from:title,description         build the text from these fields

A transform takes a record and returns its replacement: a record, a reject, or several of them. The stamp of the result
is made from the record's stamp and the transform's key. So a resumed or repeated job reuses what is stored, and redoes
what another transform, or another version of one, would change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias, runtime_checkable

from indexer.arguments import described
from indexer.corpus.records import Corpus, Entry, Record
from indexer.errors import CallError, ItemError, PluginError
from indexer.registry import Builtin, Registry
from indexer.types import PassedOver, Rejected

Outcome: TypeAlias = "Record | Rejected | Iterable[Record | Rejected]"


@runtime_checkable
class Transform(Protocol):
    """A change of records, each independently.

    A transform that takes more than a few milliseconds should cache its output by `record.stamp`: it runs whenever its
    corpus is read, also for records that are already indexed.
    """

    @property
    def key(self) -> str:
        """Everything that the outcome depends on besides the record: name, arguments, version of a model."""
        ...

    def __call__(self, record: Record) -> Outcome:
        """The record's replacement; an empty list leaves it out.

        Raises:
            ItemError: The record cannot be used; it becomes a reject.
        """
        ...


TransformFactory: TypeAlias = Callable[[str], Transform]
"""A factory of transforms; its argument is the part of the name after the colon, empty without a colon."""

TRANSFORMS = Registry[TransformFactory](
    "transform",
    "underdrawing.transforms",
    {
        "fields": Builtin("indexer.corpus.field_transforms:edit_fields", "drop, rename and set fields, given as JSON"),
        "text-from": Builtin("indexer.corpus.field_transforms:text_from", "build the text from fields"),
    },
)
"""Transforms by name. A package adds one by an entry point of the group `underdrawing.transforms`."""


def load_transform(name: str) -> Transform:
    """The transform of a name: `NAME`, or `NAME:ARGUMENTS`.

    Raises:
        UnknownNameError: No transform of that name; the message lists the known ones.
        PluginError: The package that offers it cannot be imported, or its factory returns something else.
        CallError: The arguments do not parse.
    """
    if not isinstance(name, str):
        raise CallError(f"A transform is {described(name)}; it must be a name.", "Write NAME or NAME:ARGUMENTS.")
    family, _, arguments = name.partition(":")
    made = TRANSFORMS.get(family)(arguments)
    if not isinstance(made, Transform):
        raise PluginError(f"The transform {name!r} is {described(made)}, which has no key or cannot be called.")
    return made


def transformed(corpus: Corpus, transforms: Sequence[str | Transform]) -> Corpus:
    """The corpus with each transform applied in turn; raises as `load_transform`."""
    if isinstance(transforms, str) or not isinstance(transforms, Sequence):
        raise CallError(
            f"transforms is {described(transforms)}; it must be a list of names.", "Write ['text-from:title']."
        )
    for each in transforms:
        made = each if isinstance(each, Transform) else load_transform(each)
        corpus = _Transformed(corpus, made)
    return corpus


class _Transformed:
    """A corpus with a transform applied."""

    def __init__(self, corpus: Corpus, transform: Transform) -> None:
        self.source = corpus.source
        self._corpus, self._transform = corpus, transform

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._corpus:
            if isinstance(entry, Record):
                yield from self._changed(entry)
            else:
                yield entry

    def _changed(self, record: Record) -> Iterator[Entry]:
        uri = record.document.uri or str(record.document.id)
        try:
            outcome = self._transform(record)
            # A generator raises while it is read.
            several = [outcome] if isinstance(outcome, Record | Rejected) else list(outcome)
        except ItemError as error:
            yield Rejected(uri, error.reason, error.detail, hides=str(record.document.id))
            return
        if not several:
            yield PassedOver(uri, f"left out by {self._transform.key.partition(':')[0][:40]}")
        for each in several:
            if isinstance(each, Record):
                yield replace(each, stamp=_stamp(record.stamp, self._transform.key))
            elif isinstance(each, Rejected):
                yield each
            else:
                raise CallError(f"The transform {self._transform.key[:80]!r} gave {described(each)} for {uri}.")


def _stamp(stamp: str, key: str) -> str:
    return hashlib.sha256(f"{stamp}\0{key}".encode()).hexdigest()[:32]
