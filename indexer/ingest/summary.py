"""What a job reports: its progress, and a summary at the end.

What this module does not know: how a job works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from indexer.types import Rejected

KINDS = 200
"""How many kinds of what is passed over are told apart: they are made of file names, which anybody may choose."""
OTHER_KINDS = "other kinds"
SHOWN = 5


@dataclass
class Progress:
    """Where a job stands; handed to the caller after each chunk and while the corpus is read, always the same object.

    Attributes:
        prepared: Records decoded so far.
        added: Documents committed.
        unchanged: Passed over, since they are stored as they are.
        rejected: Could not be used.
        passed_over: Seen by the reader, and neither documents nor rejects.
        read: Entries of the corpus that were read: records, rejects and what was passed over.
        place: The URI of the entry that was read last.
    """

    prepared: int = 0
    added: int = 0
    unchanged: int = 0
    rejected: int = 0
    passed_over: int = 0
    read: int = 0
    place: str | None = None


@dataclass(frozen=True, repr=False)
class Summary:
    """What a job did.

    Attributes:
        source: The corpus.
        documents: Documents in the collection now.
        added: Documents stored: new ones, and new versions of those that were there.
        unchanged: Left alone, since they are stored as they are.
        pruned: Removed, since the corpus no longer has them.
        rejected: Items that could not be used, with their reasons in `reasons` and, some of them, in `rejects`.
        seconds: Wall time.
        generation: What a search sees now.
        waited: Seconds of it in which the model had nothing to do, since records were read and decoded, or a shard was
            committed; of several batches side by side, the mean.
        reasons: How many rejects there are of each reason.
        rejects: The first 1,000 rejects.
        passed_over: How many things were seen and made neither a document nor a reject of, by kind.
        replaced: Of `added`, those in whose place a document was: an older version, or another source's.
        replaced_from: Of `replaced`, those that another source had put there, by source; `add` stands for
            `Collection.add`. Only with `replace=True`.
        moved: Of `replaced`, those that an earlier source had, whose file is gone and whose content is the same.
        reused: Of `added`, those whose content the collection knew: their vector was copied, not computed.
        kept: Documents that were not seen and not pruned, since they may lie under what could not be read.
        found: Whether the collection has any document of this corpus now.
    """

    source: str
    documents: int
    added: int
    unchanged: int
    pruned: int
    rejected: int
    seconds: float
    generation: int
    waited: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    rejects: list[Rejected] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    replaced: int = 0
    replaced_from: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    reused: int = 0
    kept: int = 0
    found: bool = True

    def __repr__(self) -> str:
        told = [f"{self.added:,} added"]
        numbers = {
            "replaced": self.replaced, "of other sources": self.replaced_from.total(), "moved": self.moved,
            "with a vector that was there": self.reused, "unchanged": self.unchanged, "pruned": self.pruned,
            "kept from pruning": self.kept,
        }  # fmt: skip
        told += [f"{number:,} {what}" for what, number in numbers.items() if number]
        told.append(f"{self.rejected:,} rejected{in_brackets(self.reasons)}")
        if self.passed_over:
            told.append(f"{self.passed_over.total():,} passed over{in_brackets(self.passed_over)}")
        where = f"{self.documents:,} documents in generation {self.generation}"
        return f"Summary({self.source}: {', '.join(told)}; {where}; {self.seconds:.1f} s)"


def in_brackets(counts: Mapping[str, int]) -> str:
    """Counts by name in brackets, largest first, such as ` (.cr2 12, .dng 3, and 2 more of 1 other kind)`."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    if not ordered:
        return ""
    told = ", ".join(f"{name} {number:,}" for name, number in ordered[:SHOWN])
    rest = ordered[SHOWN:]
    if rest:
        kinds = "1 other kind" if len(rest) == 1 else f"{len(rest):,} other kinds"
        told += f", and {sum(number for _, number in rest):,} more of {kinds}"
    return f" ({told})"


def count_kind(counts: Counter[str], kind: str) -> None:
    """Count something that was passed over; kinds beyond `KINDS` are counted together."""
    counts[kind if kind in counts or len(counts) < KINDS else OTHER_KINDS] += 1
