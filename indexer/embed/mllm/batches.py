"""Batches of items by their number of tokens, since an item with an image may cost a thousand short texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Each = TypeVar("Each")
Made = TypeVar("Made")


def by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in batches, longest items first, so that rows times the longest row is at most `budget`.

    An item longer than the budget goes alone. Items of equal length keep their order.
    """
    batches: list[list[int]] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(place)
        else:
            batches.append([place])
            longest = lengths[place]
    return batches


def halving(
    run: Callable[[Sequence[Each]], Made], items: Sequence[Each], release: Callable[[], None]
) -> list[tuple[Sequence[Each], Made]]:
    """Run a batch, or its halves if memory runs out. Returns the inputs with their outcomes, in order.

    Args:
        run: Processes one batch.
        items: The batch.
        release: Called between attempts, to free what a failed one left.

    Raises:
        MemoryError, RuntimeError: A single item is too large, or something else went wrong.
    """
    try:
        return [(items, run(items))]
    except (MemoryError, RuntimeError) as error:
        if len(items) == 1 or not out_of_memory(error):
            raise
    # Outside the handler: the error's traceback holds the tensors of the failed attempt.
    release()
    middle = len(items) // 2
    return halving(run, items[:middle], release) + halving(run, items[middle:], release)


def out_of_memory(error: BaseException) -> bool:
    """Whether a torch error says that the device is out of memory: on CUDA, Apple's GPUs, or the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in told or "can't allocate memory" in told)
