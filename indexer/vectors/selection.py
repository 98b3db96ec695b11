"""Choose the index for a collection from its size and the available memory.

The rule follows FAISS's guidelines: exact search while it is fast, or if building would not pay; then a graph (HNSW),
the fastest at high recall, if it fits; then an inverted file (IVF), with 8 bits per dimension if it does not fit as
floats. On a GPU: exact search if it fits, if need be with 16 bits per dimension, then an inverted file. Settings
override the rule. Exact search on the CPU reads SQ8 codes where there are enough vectors to repay making them.

What this module does not know: the machine. Memory is passed in, so that everything here is a pure function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from indexer.errors import CallError, UnknownNameError
from indexer.types import HelpfulEnum
from indexer.vectors.settings import Device, IndexKind, IndexSettings

EXACT_ROWS = 200_000  # about 6 ms for one query of 512 dimensions on two cores
CODED_ROWS = 20_000  # from this size on, reading a quarter of the bytes saves more than threads and re-scoring cost
FEW_QUERIES = 1_000  # fewer searches than this take less time than building an index
HNSW_LINKS = 32
ID_BYTES = 8
GRAPH_BYTES = 16  # bytes per row of a graph: its offset, its level, and its share of the upper levels


class Codes(HelpfulEnum):
    """The encoding that a search reads first: float32, or 16 or 8 bits per dimension, re-scored exactly afterwards."""

    FLOAT32 = "float32"
    FP16 = "fp16"
    SQ8 = "sq8"


@dataclass(frozen=True)
class Choice:
    """The chosen kind of index, the reason, and its memory.

    Attributes:
        kind: Never `auto`.
        codes: The encoding that is searched first. Exact search gives the same answers with any.
        bytes: Estimated memory of the built index. Exact search on the CPU without SQ8 codes needs none of its
            own: it reads the mapped segments through the system's cache.
        reason: A sentence with the numbers.
        rows: The number of vectors.
    """

    kind: IndexKind
    codes: Codes
    bytes: int
    reason: str
    rows: int

    @property
    def wants_codes(self) -> bool:
        """Whether exact search on the CPU should read SQ8 codes, even beside an approximate index."""
        return self.codes is Codes.SQ8 if self.kind is IndexKind.EXACT else self.rows >= CODED_ROWS


_NAMES = {
    (IndexKind.EXACT, Codes.FLOAT32): "a flat index",
    (IndexKind.EXACT, Codes.FP16): "a flat index with 16 bits per dimension",
    (IndexKind.EXACT, Codes.SQ8): "a scan of SQ8 codes",
    (IndexKind.HNSW, Codes.FLOAT32): "a graph",
    (IndexKind.IVF, Codes.FLOAT32): "an inverted file",
    (IndexKind.IVF, Codes.FP16): "an inverted file with 16 bits per dimension",
    (IndexKind.IVF, Codes.SQ8): "an inverted file with 8 bits per dimension",
}
_BYTES = {Codes.FLOAT32: 4, Codes.FP16: 2, Codes.SQ8: 1}
_ON_CPU = ((IndexKind.HNSW, Codes.FLOAT32), (IndexKind.IVF, Codes.FLOAT32), (IndexKind.IVF, Codes.SQ8))
_ON_GPU = (
    (IndexKind.EXACT, Codes.FLOAT32),
    (IndexKind.EXACT, Codes.FP16),
    (IndexKind.IVF, Codes.FLOAT32),
    (IndexKind.IVF, Codes.FP16),
    (IndexKind.IVF, Codes.SQ8),
)
"""In order of preference, apart from exact search on the CPU."""


def ivf_lists(rows: int) -> int:
    """The number of IVF lists: 4 * sqrt(rows), or fewer so that each has the 39 rows that training needs."""
    return max(min(round(4 * math.sqrt(rows)), rows // 39), 1)


def estimate_bytes(kind: IndexKind, rows: int, dim: int, codes: Codes = Codes.FLOAT32) -> int:
    """Memory of a built index.

    Args:
        kind: Any but `auto`.
        rows: How many vectors.
        dim: Their length.
        codes: Their encoding; HNSW always stores float32.

    Raises:
        UnknownNameError: `kind` is `auto`, which has no size.
    """
    stored = rows * dim * _BYTES[codes]
    if kind is IndexKind.EXACT:
        return stored
    if kind is IndexKind.HNSW:
        return rows * dim * 4 + rows * (HNSW_LINKS * 2 * 4 + ID_BYTES + GRAPH_BYTES)
    if kind is IndexKind.IVF:
        return stored + rows * ID_BYTES + ivf_lists(rows) * dim * 4
    raise UnknownNameError("index with a size", kind, ["exact", "hnsw", "ivf"])


def choose_kind(
    rows: int,
    dim: int,
    settings: IndexSettings,
    available_bytes: int,
    expected_queries: int | None = None,
) -> Choice:
    """Choose the index for a collection.

    Args:
        rows: How many vectors.
        dim: Their length.
        settings: A kind other than `auto` is used as given; only the encoding of IVF is then chosen.
        available_bytes: Memory of the machine, or of the GPU if the settings say `cuda`. The index may
            take half of it, unless the settings set a budget.
        expected_queries: The total number of searches, if known.

    Raises:
        CallError: The settings say `cuda`, and nothing fits the GPU or their kind has no GPU version.
    """
    budget = allowed_bytes(settings, available_bytes)
    vectors = f"{rows:,} vectors of {dim} dimensions"
    on_gpu = settings.device is Device.CUDA

    def choice(kind: IndexKind, codes: Codes, reason: str) -> Choice:
        return Choice(kind, codes, estimate_bytes(kind, rows, dim, codes), reason, rows)

    def exact(reason: str) -> Choice:
        size = estimate_bytes(IndexKind.EXACT, rows, dim, Codes.SQ8)
        coded = rows >= CODED_ROWS and size <= budget
        if coded:
            reason += f" SQ8 codes, {_amount(size)}, are read first."
        return choice(IndexKind.EXACT, Codes.SQ8 if coded else Codes.FLOAT32, reason)

    if not on_gpu:
        if settings.kind is IndexKind.EXACT:
            return exact("The settings ask for it.")
        if settings.kind is not IndexKind.AUTO:
            lists = estimate_bytes(IndexKind.IVF, rows, dim)
            small = settings.kind is IndexKind.IVF and lists > budget
            return choice(settings.kind, Codes.SQ8 if small else Codes.FLOAT32, "The settings ask for it.")
        if expected_queries is not None and expected_queries < FEW_QUERIES:
            reason = f"Building an index does not pay for {expected_queries:,} searches."
            return choice(IndexKind.EXACT, Codes.FLOAT32, reason)
        if rows <= EXACT_ROWS:
            return exact(f"{vectors}; up to {EXACT_ROWS:,} are fast to scan in full.")
    too_large = ""
    for kind, codes in _gpu_candidates(settings) if on_gpu else _ON_CPU:
        name, size = _NAMES[kind, codes], estimate_bytes(kind, rows, dim, codes)
        if size <= budget:
            reason = f"{vectors}: {too_large}{name} takes {_amount(size)} of the {_amount(budget)} allowed."
            return choice(kind, codes, reason)
        too_large += f"{name} would take {_amount(size)}, "
    reason = f"{vectors}: {too_large}and {_amount(budget)} are allowed"
    if on_gpu:
        raise CallError(f"{reason}.", "Search on the CPU (device='cpu'), or allow more with memory_budget.")
    return choice(IndexKind.EXACT, Codes.FLOAT32, f"{reason}, so they are scanned from disk.")


def _gpu_candidates(settings: IndexSettings) -> list[tuple[IndexKind, Codes]]:
    """The options that a GPU can hold and the settings allow, in order of preference."""
    if settings.kind is IndexKind.HNSW:
        raise CallError("FAISS has no HNSW on GPUs.", "Choose kind='exact' or 'ivf', or device='cpu'.")
    kinds = [IndexKind.EXACT, IndexKind.IVF] if settings.kind is IndexKind.AUTO else [settings.kind]
    return [
        (kind, codes) for kind, codes in _ON_GPU if kind in kinds and not (settings.half and codes is Codes.FLOAT32)
    ]


def allowed_bytes(settings: IndexSettings, available_bytes: int) -> int:
    """The bytes that an index may take: the budget of the settings, or half of the available memory."""
    return available_bytes // 2 if settings.budget is None else settings.budget


@dataclass(frozen=True)
class Alternative:
    """An index that a collection could have.

    Attributes:
        kind: Its kind.
        codes: Its encoding of the vectors.
        bytes: Estimated memory.
        fits: Whether it is within the budget.
        exact: Whether it answers exactly; otherwise it is tuned to the recall of the settings.
    """

    kind: IndexKind
    codes: Codes
    bytes: int
    fits: bool
    exact: bool


def alternatives(rows: int, dim: int, settings: IndexSettings, available_bytes: int) -> list[Alternative]:
    """All options for a collection, smallest first; `choose_kind` takes one of them."""
    budget = allowed_bytes(settings, available_bytes)
    exact = (IndexKind.EXACT, Codes.FLOAT32), (IndexKind.EXACT, Codes.SQ8)
    pairs = _ON_GPU if settings.device is Device.CUDA else (*exact, *_ON_CPU)
    sizes = {pair: estimate_bytes(pair[0], rows, dim, pair[1]) for pair in pairs}
    return [
        Alternative(kind, codes, size, size <= budget, kind is IndexKind.EXACT)
        for (kind, codes), size in sorted(sizes.items(), key=lambda each: each[1])
    ]


def _amount(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
