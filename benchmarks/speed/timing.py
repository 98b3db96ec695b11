"""Timing on a shared machine: contenders take turns, and the result is the ratio within a turn."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WARM_UP = 3


@dataclass(frozen=True)
class Race:
    """Seconds of every contender in every turn.

    Attributes:
        seconds: (turns,) float64 by contender.
    """

    seconds: Mapping[str, npt.NDArray[np.float64]]

    def ms(self, name: str) -> float:
        """The median, in milliseconds."""
        return _rounded(1000 * float(np.median(self.seconds[name])))

    def ratio(self, one: str, other: str) -> dict[str, Any]:
        """The time of one as a multiple of another: median and quartiles of the turns' ratios."""
        return spread(self.seconds[one] / self.seconds[other])

    def beyond(self, one: str, other: str) -> dict[str, Any]:
        """How many milliseconds longer one takes than another, turn by turn."""
        return spread(1000 * (self.seconds[one] - self.seconds[other]))

    def told(self) -> dict[str, Any]:
        """Milliseconds of all, as JSON."""
        return {name: spread(1000 * own) for name, own in self.seconds.items()}


def race(contenders: Mapping[str, Callable[[int], Any]], turns: int) -> Race:
    """Let contenders take turns; each call gets the turn's number, so that inputs differ between turns.

    Every other turn is in reverse order: the second contender finds in the caches what the first had to fetch.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-min(WARM_UP, turns), turns):
        for name, run in list(contenders.items())[:: -1 if turn % 2 else 1]:
            start = time.perf_counter()
            run(turn)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return Race({name: np.asarray(own) for name, own in seconds.items()})


def spread(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Median and quartiles."""
    low, middle, high = (float(each) for each in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": _rounded(middle), "quartiles": [_rounded(low), _rounded(high)]}


def peak_megabytes() -> float:
    """The peak memory of this process, mapped files included."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        # Not on Linux; there it also counts the memory of the parent process.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> dict[str, Any]:
    """The facts that a time depends on."""
    import psutil

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": [round(each, 2) for each in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "faiss-cpu", "faiss-gpu", "torch") if _version(name)},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
