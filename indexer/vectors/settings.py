"""The settings for building and searching an index, which a collection stores.

What this module does not know: any index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

from indexer.arguments import finite, flag
from indexer.errors import CallError, UnknownNameError
from indexer.types import HelpfulEnum, JsonValue


class IndexKind(HelpfulEnum):
    """How vectors are searched. `auto` follows `choose_kind`."""

    AUTO = "auto"
    EXACT = "exact"
    HNSW = "hnsw"
    IVF = "ivf"


class Device(HelpfulEnum):
    """Where the index is searched."""

    CPU = "cpu"
    CUDA = "cuda"
    """All visible GPUs (`CUDA_VISIBLE_DEVICES`); the CPU, with a note, if there is none or one fails."""


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built and searched.

    Attributes:
        kind: The index to use, an `IndexKind` or its name; `auto` chooses by size.
        memory_budget: Bytes that the index may take in memory, a number or a text such as "4GB"; None for half of the
            machine's free memory.
        recall: The recall@10 against exact search that approximate kinds are tuned to, for every kind of query.
        device: Where to search: a `Device` or its name.
        half: On a GPU, store 16 bits per dimension even where 32 would fit: half the memory, and about half the time.
            Candidates are re-scored in full, so answers are the same.

    Raises:
        UnknownNameError: There is no such kind or device; the message lists all.
        CallError: A number or an amount is invalid.
    """

    kind: IndexKind = IndexKind.AUTO
    memory_budget: int | str | None = None
    recall: float = 0.95
    device: Device = Device.CPU
    half: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", IndexKind(self.kind))
        object.__setattr__(self, "device", Device(self.device))
        flag(self.half, "half")
        if not 0 < finite(self.recall, "recall") <= 1:
            raise CallError(f"An index is tuned to a recall of more than 0 and at most 1, not {self.recall}.")
        _ = self.budget

    @property
    def budget(self) -> int | None:
        """`memory_budget` in bytes.

        Raises:
            CallError: It is not an amount, or is below 0.
        """
        return None if self.memory_budget is None else parse_bytes(self.memory_budget)

    def changed(self, given: IndexSettings | IndexKind | str | Mapping[str, Any] | None) -> IndexSettings:
        """These settings with a caller's changes.

        Args:
            given: Other settings, which replace these; or the name of a kind, or settings by name, which change only
                those; None for no change.

        Raises:
            UnknownNameError: There is no such kind, device or setting.
            CallError: A value is invalid.
        """
        if given is None:
            return self
        if isinstance(given, IndexSettings):
            return given
        changes: Mapping[str, Any] = given if isinstance(given, Mapping) else {"kind": given}
        known = [each.name for each in fields(self)]
        for name in changes:
            if name not in known:
                raise UnknownNameError("index setting", name, known)
        return replace(self, **changes)

    def to_json(self) -> dict[str, JsonValue]:
        """All settings by name; `IndexSettings().changed(...)` reads them."""
        return {
            "kind": self.kind.value,
            "memory_budget": self.budget,
            "recall": float(self.recall),
            "device": self.device.value,
            "half": bool(self.half),
        }


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(amount: int | str) -> int:
    """Bytes from a number, or from a text such as "4GB", "500 MB" or "1.5GiB".

    Raises:
        CallError: It is neither, or below 0.
    """
    if isinstance(amount, Integral) and not isinstance(amount, bool) and amount >= 0:
        return int(amount)
    said = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(amount))
    if said is None or said[2].upper() not in _UNITS:
        raise CallError(f"{amount!r} is not an amount of memory.", "Write a number of bytes, or text such as 4GB.")
    return int(float(said[1]) * _UNITS[said[2].upper()])
