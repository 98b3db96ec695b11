"""The progress of a job, and its summary at the end.

What this module does not know: how a job works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from indexer.types import Rejected

KINDS = 200
"""The most kinds of passed-over entries that are counted separately: they come from arbitrary file names."""
OTHER_KINDS = "other kinds"
SHOWN = 5


@dataclass
class Progress:
    """The progress of a job, passed to the caller after each chunk and during reading; always the same object.

    Attributes:
        prepared: Records decoded so far.
        added: Documents committed.
        unchanged: Documents skipped because they are stored unchanged.
        rejected: Items that could not be used.
        passed_over: Entries that the reader made neither documents nor rejects of.
        read: Entries of the corpus read so far: records, rejects and what was passed over.
        place: The URI of the last entry read.
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
    """The outcome of a job.

    Attributes:
        source: The corpus.
        documents: Documents in the collection now.
        added: Documents stored: new ones, and new versions of existing ones.
        unchanged: Documents that were stored unchanged before.
        pruned: Documents removed because the corpus no longer has them.
        rejected: Items that could not be used, with their reasons in `reasons` and, some of them, in `rejects`.
        seconds: Wall time.
        generation: The generation that searches see now.
        waited: Seconds in which the model was idle because records were read and decoded or a shard was committed;
            the mean over parallel batches.
        reasons: The number of rejects for each reason.
        rejects: The first 1,000 rejects.
        passed_over: Entries that became neither a document nor a reject, by kind.
        replaced: Those of `added` that replaced a document: an older version, or another source's.
        replaced_from: Those of `replaced` that came from another source, by source; `add` stands for `Collection.add`.
            Only with `replace=True`.
        moved: Those of `replaced` that came from an earlier source, whose file is gone, with the same content.
        reused: Those of `added` whose content the collection already had: their vector was copied, not computed.
        kept: Documents that were not seen, but not pruned since they may lie under what could not be read.
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
        counted = [f"{self.added:,} added"]
        numbers = {
            "replaced": self.replaced, "of other sources": self.replaced_from.total(), "moved": self.moved,
            "with a vector that was there": self.reused, "unchanged": self.unchanged, "pruned": self.pruned,
            "kept from pruning": self.kept,
        }  # fmt: skip
        counted += [f"{number:,} {what}" for what, number in numbers.items() if number]
        counted.append(f"{self.rejected:,} rejected{in_brackets(self.reasons)}")
        if self.passed_over:
            counted.append(f"{self.passed_over.total():,} passed over{in_brackets(self.passed_over)}")
        where = f"{self.documents:,} documents in generation {self.generation}"
        return f"Summary({self.source}: {', '.join(counted)}; {where}; {self.seconds:.1f} s)"


def in_brackets(counts: Mapping[str, int]) -> str:
    """Counts by name in parentheses, largest first, such as ` (.cr2 12, .dng 3, and 2 more of 1 other kind)`."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    if not ordered:
        return ""
    listed = ", ".join(f"{name} {number:,}" for name, number in ordered[:SHOWN])
    rest = ordered[SHOWN:]
    if rest:
        kinds = "1 other kind" if len(rest) == 1 else f"{len(rest):,} other kinds"
        listed += f", and {sum(number for _, number in rest):,} more of {kinds}"
    return f" ({listed})"


def count_kind(counts: Counter[str], kind: str) -> None:
    """Count a passed-over entry; kinds beyond `KINDS` are counted together."""
    counts[kind if kind in counts or len(counts) < KINDS else OTHER_KINDS] += 1
