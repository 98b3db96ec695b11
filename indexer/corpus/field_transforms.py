"""Transforms of a record's fields: edit them, or build the text from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from indexer.arguments import described
from indexer.corpus.records import Record
from indexer.errors import CallError


@dataclass(frozen=True)
class EditFields:
    """Drops, renames and sets fields, in this order; missing fields are no error."""

    drop: frozenset[str] = frozenset()
    rename: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """All three."""
        edits = {"drop": sorted(self.drop), "rename": dict(self.rename), "set": dict(self.set)}
        return f"fields:{json.dumps(edits, sort_keys=True)}"

    def __call__(self, record: Record) -> Record:
        """The record with other fields."""
        kept = {
            self.rename.get(name, name): value
            for name, value in record.document.fields.items()
            if name not in self.drop
        }
        return replace(record, document=replace(record.document, fields={**kept, **self.set}))


def edit_fields(arguments: str) -> EditFields:
    """`fields:JSON`.

    Raises:
        CallError: The arguments are not a JSON object of `drop`, `rename` and `set`.
    """
    example = 'Write fields:{"drop": ["price"], "rename": {"titel": "title"}, "set": {"shop": "north"}}.'
    try:
        edits = json.loads(arguments)
    except ValueError as error:
        raise CallError(f"The arguments of fields are not JSON: {error}.", example) from error
    shapes: dict[str, type] = {"drop": list, "rename": dict, "set": dict}
    if not isinstance(edits, dict) or not edits or edits.keys() - shapes.keys():
        raise CallError(f"fields takes drop, rename and set, not {arguments[:80]}.", example)
    for name, value in edits.items():
        if not isinstance(value, shapes[name]):
            raise CallError(f"{name} of fields is {described(value)}; it must be a {shapes[name].__name__}.", example)
    names = [*edits.get("drop", []), *edits.get("rename", {}).values()]
    if strange := [name for name in names if not isinstance(name, str)]:
        raise CallError(f"{described(strange[0])} is not the name of a field.", example)
    return EditFields(frozenset(edits.get("drop", [])), edits.get("rename", {}), edits.get("set", {}))


@dataclass(frozen=True)
class TextFrom:
    """Builds the text from fields, one line for each that has a value; if none has one, the text is unchanged."""

    names: tuple[str, ...]

    @property
    def key(self) -> str:
        """The names."""
        return f"text-from:{','.join(self.names)}"

    def __call__(self, record: Record) -> Record:
        """The record with another text."""
        values = [record.document.fields.get(name) for name in self.names]
        lines = [_line(value) for value in values if value not in (None, "", [], {})]
        if not lines:
            return record
        return replace(record, document=replace(record.document, text="\n".join(lines)))


def text_from(arguments: str) -> TextFrom:
    """`text-from:FIELD,FIELD`.

    Raises:
        CallError: No field is named.
    """
    names = tuple(name.strip() for name in arguments.split(",") if name.strip())
    if not names:
        raise CallError("text-from names no field.", "Write text-from:title, or text-from:title,description.")
    return TextFrom(names)


def _line(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
