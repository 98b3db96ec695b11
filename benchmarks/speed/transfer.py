"""Cost of passing an image's pixels from a decoding process to the model: pickled, and in shared memory.

    python -m benchmarks.speed.transfer [--sizes N ...]

A process makes a chunk of images, like the job, and passes it in either way; the time of making it without passing it
is subtracted. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.speed.timing import machine, race
from indexer.ingest.job import CHUNK

Pixels = npt.NDArray[np.uint8]


def _made(side: int) -> list[Pixels]:
    return [np.full((side, side, 3), number, np.uint8) for number in range(CHUNK)]


def _nothing(side: int) -> None:
    _made(side)


def _shared(side: int) -> str:
    """The name of a shared memory block with a chunk of images; the reader unlinks it."""
    made = _made(side)
    block = SharedMemory(create=True, size=CHUNK * made[0].nbytes)
    np.ndarray((CHUNK, *made[0].shape), np.uint8, block.buf)[:] = made
    block.close()
    return block.name


def _through(pool: ProcessPoolExecutor, work: Callable[[int], Any], side: int, _turn: int) -> None:
    pool.submit(work, side).result()


def _through_shared_memory(pool: ProcessPoolExecutor, side: int, _turn: int) -> None:
    block = SharedMemory(name=pool.submit(_shared, side).result())
    pixels = np.ndarray((CHUNK, side, side, 3), np.uint8, block.buf)
    assert pixels[-1, -1, -1, -1] == CHUNK - 1
    del pixels  # a view keeps the block open
    block.close()
    block.unlink()


def measure(sides: Sequence[int], turns: int) -> list[dict[str, Any]]:
    """Milliseconds per image of a given side, in both ways."""
    rows = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for side in sides:
            found = race(
                {
                    "nothing": partial(_through, pool, _nothing, side),
                    "pickled": partial(_through, pool, _made, side),
                    "shared": partial(_through_shared_memory, pool, side),
                },
                turns,
            )
            ways = {name: round(found.beyond(name, "nothing")["median"] / CHUNK, 3) for name in ("pickled", "shared")}
            rows.append({"side": side, **{f"{name}_ms": each for name, each in ways.items()}})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.transfer", description="Measure handing over.")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 768], metavar="N", help="sides of the images")
    parser.add_argument("--turns", type=int, default=30, metavar="N", help="of the race")
    options = parser.parse_args(arguments)
    facts, rows = machine(), measure(options.sizes, options.turns)
    print(f"handing over: {facts}")
    for row in rows:
        print(f"  {row['side']} px: {row['pickled_ms']} ms per image pickled, {row['shared_ms']} in shared memory")
    print(json.dumps({"machine": facts, "rows": rows}, separators=(",", ":")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
