"""A count of the code that one warm search runs through: the project's files, and the calls between them.

    python -m benchmarks.speed.crossings [--json FILE] [--where]

Counted with `sys.setprofile` in every thread. A *switch* is a call from one of the project's files straight into
another. A second count adds the calls that come through a library, such as a hook of SQLAlchemy or the exit of a
context manager. Resuming a generator is a call. Methods that dataclasses generate have no file and are not counted.
`sum` runs with `fake:64`; `cig` with the bundled CLIP and pseudo-words, and a generator that makes noise. The part of
`cig` alone is what it runs beyond `sum` with that model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from indexer import Collection, Document
from indexer.files.atomic import atomic_write
from retrieval import GenerateOptions, PseudoTargetProvider, Query, Retriever

ROOT = Path(__file__).parents[2]
PACKAGES = ("indexer", "retrieval", "pipelines")
DOCUMENTS = 64
SIDE = 16
"""Side of an image, in pixels."""

BARS = {"files": 14, "switches": 60}
"""Bars of a `sum` search that returns one document."""

Profiler = Callable[[FrameType, str, Any], None]


@dataclass
class Crossings:
    """The code that a search ran through.

    Attributes:
        calls: Calls of a file's functions, by its path in the checkout.
        switches: Direct calls from one file into another, by calling and called file.
        through: The same for calls through a library.
    """

    calls: Counter[str] = field(default_factory=Counter)
    switches: Counter[tuple[str, str]] = field(default_factory=Counter)
    through: Counter[tuple[str, str]] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """The numbers of files, switches, switches including those through a library, and calls."""
        switches = self.switches.total()
        return {
            "files": len(self.calls),
            "switches": switches,
            "with_library": switches + self.through.total(),
            "calls": self.calls.total(),
        }


class Watch:
    """Counts calls while it is switched on, in all threads that start after it."""

    def __init__(self) -> None:
        self.found: Crossings | None = None
        self._files: dict[str, str | None] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """See every call in this block; count only within `counting`."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def counting(self) -> Iterator[Crossings]:
        """Count the calls of this block."""
        self.found = found = Crossings()
        try:
            yield found
        finally:
            self.found = None

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.found is None or event != "call" or (file := self._file(frame)) is None:
            return
        self.found.calls[file] += 1
        below, caller, counted = frame.f_back, None, self.found.switches
        while below is not None and (caller := self._file(below)) is None:
            below, counted = below.f_back, self.found.through
        if caller is not None and caller != file:
            counted[caller, file] += 1

    def _file(self, frame: FrameType) -> str | None:
        """The project's file that a frame runs, relative to the checkout; None outside the project."""
        name = frame.f_code.co_filename
        if name not in self._files:
            path = Path(name)
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES
            self._files[name] = path.relative_to(ROOT).as_posix() if inside else None
        return self._files[name]


@dataclass(frozen=True)
class Made:
    """The images of one pseudo-target, as a generator returns them."""

    images: tuple[Image.Image, ...]
    failed: str | None = None


class NoiseGenerator:
    """Stands in for a diffusion model: noise that depends on the sentence."""

    name = "noise"
    feature_models = (("bundled:emoji-clip", True),)
    defaults = GenerateOptions(steps=1, guidance=1.0, size=SIDE)

    def identity(self, options: GenerateOptions) -> dict[str, Any]:
        """The generator's part of the cache key."""
        return {"generator": self.name, **asdict(options.over(self.defaults))}

    def generate(self, requests: Sequence[Any], options: GenerateOptions) -> list[Any]:
        """One image for each request."""
        digests = [hashlib.sha256(request.text.encode()).digest() for request in requests]
        return [Made((image(int.from_bytes(digest[:4])),)) for digest in digests]


def image(seed: int) -> Image.Image:
    """A small image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def measure(folder: Path) -> dict[str, Crossings]:
    """The code that each search runs through.

    Args:
        folder: An empty folder for collections and pseudo-targets.
    """
    watch = Watch()
    with watch.installed():
        found = {
            f"sum, {k} of {DOCUMENTS} documents": _search(watch, folder / f"sum-{k}", "fake:64", "sum", k)
            for k in (1, 10)
        }
        model = "bundled:emoji-clip"
        plain = _search(watch, folder / "plain", model, "sum", 1)
        found["cig, 1 document"] = cig = _search(watch, folder / "cig", model, "cig", 1)
    found["cig alone"] = Crossings(
        Counter({file: count for file, count in cig.calls.items() if file not in plain.calls}),
        Counter({pair: count for pair, count in cig.switches.items() if pair not in plain.switches}),
        Counter({pair: count for pair, count in cig.through.items() if pair not in plain.through}),
    )
    return found


def _search(watch: Watch, folder: Path, model: str, method: str, k: int) -> Crossings:
    """One search after two others."""
    with Collection.open(folder, model) as collection:
        collection.add([Document(str(number), image=image(number)) for number in range(DOCUMENTS)])
        pseudo_targets = PseudoTargetProvider(generator=NoiseGenerator(), cache=folder / "pseudo-targets")
        retriever = Retriever(collection, method=method, pseudo_targets=pseudo_targets)
        queries = [Query(image=image(DOCUMENTS + turn), text=f"in another color, number {turn}") for turn in range(3)]
        for query in queries[:2]:
            retriever.search(query, k)
        with watch.counting() as found:
            results = retriever.search(queries[2], k)
    if len(results.hits) != k or results.notes:
        raise AssertionError(f"{method} found {len(results.hits)} of {k} documents: {results.notes}")
    return found


def table(found: dict[str, Crossings], *, where: bool = False) -> str:
    """The counts as a markdown table; with `where`, each file and its calls below it."""
    lines = ["| search | files | switches | with a library's | calls |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, own in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in own.counts().values()) + " |")
    if where:
        for name, own in found.items():
            lines += ["", f"{name}:", *(f"  {count:6,} {file}" for file, count in own.calls.most_common())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.crossings", description="Count what is crossed.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there, too")
    parser.add_argument("--where", action="store_true", help="list the files of each search")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(table(found, where=options.where))
    told = {name: {**own.counts(), "where": dict(own.calls.most_common())} for name, own in found.items()}
    if options.json:
        atomic_write(options.json, json.dumps({"bars": BARS, "searches": told}, indent=1).encode() + b"\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
