"""Facts for `underdrawing doctor`: what is installed, what the machine can do, and whether a search works.

Every fact is looked up on its own, so that one broken package does not hide the others.

What this module does not know: how the facts are shown.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from indexer.embed.devices import AUTO, settled_device
from indexer.errors import UnderdrawingError
from pipelines.diagnostics.plugins import Found, plugins
from underdrawing import __version__

PACKAGES = (
    "torch", "open-clip-torch", "transformers", "diffusers", "numpy", "pillow", "pillow-heif", "pyarrow",
    "safetensors", "sqlalchemy", "psycopg",
)  # fmt: skip
EMBEDDERS, COMPANIONS = ("emoji-clip",), ("emoji-inversion", "emoji-generator")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
BF16_PAYS = 1.3
"""The speed-up over float32 from which bfloat16 is worth its lower precision."""
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

SMOKE_TEXTS = {
    "apple": "a red apple", "pear": "a green pear", "moon": "the moon at night", "sun": "the sun at noon",
    "cat": "a sleeping cat", "dog": "a barking dog", "lamp": "a desk lamp", "chair": "an old chair",
}  # fmt: skip


@dataclass(frozen=True)
class Bf16:
    """How the processor takes to bfloat16.

    Attributes:
        flags: The instructions for it that the processor names.
        speedup: A matrix product in float32 over the same in bfloat16, in time: above 1, bfloat16 is faster.
    """

    flags: tuple[str, ...]
    speedup: float | None

    @property
    def pays(self) -> bool:
        """Whether `--dtype bfloat16` is worth it."""
        return self.speedup is not None and self.speedup >= BF16_PAYS


@dataclass(frozen=True)
class Smoke:
    """The outcome of a search over eight documents.

    Attributes:
        passed: Whether the answer was right.
        detail: What was found, or what went wrong.
        milliseconds: For making the collection, indexing and searching.
    """

    passed: bool
    detail: str
    milliseconds: float


@dataclass(frozen=True)
class Diagnosis:
    """All that was found.

    Attributes:
        versions: By name; None for what is not installed.
        processor: Its model.
        threads: How many this process may use.
        devices: CUDA and MPS devices, in words.
        device: The one that models run on by default.
        bf16: See `Bf16`.
        faiss: What `indexer.vectors.faiss_index.describe` says; None where FAISS cannot be used.
        bundled: Bundled models and whether they are there.
        plugins: What other packages add.
        problems: What does not work, and what to do about it.
        smoke: Whether a search works.
    """

    versions: Mapping[str, str | None]
    processor: str
    threads: int
    devices: tuple[str, ...]
    device: str
    bf16: Bf16
    faiss: Mapping[str, Any] | None
    bundled: Mapping[str, bool]
    smoke: Smoke
    plugins: tuple[Found, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def well(self) -> bool:
        """Whether the engine works here; what is merely missing does not count."""
        return self.smoke.passed


def examine() -> Diagnosis:
    """Look at everything. Takes as long as importing torch, and a second or two."""
    problems: list[str] = []
    return Diagnosis(
        versions=versions(),
        processor=processor(),
        threads=usable_threads(),
        devices=_or_problem(devices, (), problems),
        device=_or_problem(lambda: settled_device(AUTO), "cpu", problems),
        bf16=Bf16(bf16_flags(), _or_problem(bf16_speedup, None, problems)),
        faiss=_or_problem(faiss_facts, None, problems),
        bundled=bundled_models(),
        smoke=smoke_search(),
        plugins=plugins(),
        problems=tuple(dict.fromkeys(problems)),
    )


def versions() -> dict[str, str | None]:
    """Python, this program, and what it stands on; nothing is imported for it."""
    found = {"python": platform.python_version(), "underdrawing": __version__}
    return found | {name: _version(name) for name in PACKAGES} | {"sqlite": sqlite3.sqlite_version}


def processor() -> str:
    """The processor's model."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def usable_threads() -> int:
    """Hardware threads that this process may use; in a container often fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bf16_flags() -> tuple[str, ...]:
    """The processor's instructions for bfloat16, by the kernel's names."""
    named = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return tuple(flag for flag in BF16_FLAGS if flag in named)


def bf16_speedup(seconds: float = 0.3) -> float:
    """How many times as fast a matrix product is in bfloat16 as in float32.

    Args:
        seconds: To spend on each of the two, about.
    """
    import torch

    def best(dtype: torch.dtype) -> float:
        left, right = torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        left @ right  # the first product pays for choosing a kernel
        fastest, started = float("inf"), time.perf_counter()
        while time.perf_counter() - started < seconds:
            start = time.perf_counter()
            left @ right
            fastest = min(fastest, time.perf_counter() - start)
        return fastest

    return best(torch.float32) / best(torch.bfloat16)


def devices() -> tuple[str, ...]:
    """The accelerators that torch can use, in words."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        told = torch.cuda.get_device_properties(number)
        found.append(f"cuda:{number} {told.name}, {told.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        found.append("mps")
    if not found and NVIDIA_DRIVER.exists():
        raise UnderdrawingError(
            "There is an NVIDIA driver, but torch sees no CUDA device.",
            "Is it the CUDA build of torch? See https://pytorch.org/get-started/locally/",
        )
    return tuple(found)


def faiss_facts() -> dict[str, Any]:
    """Which FAISS is in use.

    Raises:
        UnderdrawingError: None, or two at once; the remedy is the pip line.
    """
    from indexer.vectors.faiss_index import describe

    return dict(describe())


def bundled_models() -> dict[str, bool]:
    """The bundled models by name, embedders first, and whether this installation has them."""
    from indexer.bundled import FOLDER

    return {name: (FOLDER / name).is_dir() for name in (*EMBEDDERS, *COMPANIONS)}


def open_clip_models() -> dict[str, list[str]]:
    """Architectures that open_clip knows, and the tags of their weights."""
    import open_clip

    found: dict[str, list[str]] = {}
    for architecture, tag in open_clip.list_pretrained():
        found.setdefault(architecture, []).append(tag)
    return found


def smoke_search() -> Smoke:
    """Make a collection of eight documents in a temporary folder, search it, and look at the answer."""
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="underdrawing-doctor-") as folder:
            passed, detail = _search(Path(folder) / "collection")
    except (UnderdrawingError, OSError, ImportError) as error:
        passed, detail = False, str(error)
    return Smoke(passed, detail, (time.perf_counter() - started) * 1000)


def _search(folder: Path) -> tuple[bool, str]:
    from indexer.collection import Collection
    from indexer.types import Document
    from retrieval import SearchRequest, SearchService

    documents = [Document(name, text, fields={"words": len(text.split())}) for name, text in SMOKE_TEXTS.items()]
    with Collection.open(folder, model="fake:64") as collection:
        collection.add(documents)
        service = SearchService(collection)
        everything = service.search(SearchRequest(text=SMOKE_TEXTS["cat"], k=len(documents)))
        filtered = service.search(SearchRequest(text=SMOKE_TEXTS["cat"], k=2, where={"words": {"$gt": 3}}))
    found = [hit.id for hit in everything]
    if found[:1] != ["cat"] or abs(everything.hits[0].score - 1) > 1e-3 or sorted(found) != sorted(SMOKE_TEXTS):
        return False, f"a search for {SMOKE_TEXTS['cat']!r} found {', '.join(found) or 'nothing'}"
    if {hit.id for hit in filtered} != {"moon", "sun"}:
        return False, f"a filtered search found {', '.join(hit.id for hit in filtered) or 'nothing'}"
    return True, f"{len(found)} documents indexed, searched and filtered"


def _or_problem(look: Callable[[], Any], otherwise: Any, problems: list[str]) -> Any:
    """What `look` finds. A package that is missing or broken (OSError: its libraries) becomes a problem."""
    try:
        return look()
    except (UnderdrawingError, ImportError, OSError) as error:
        problems.append(str(error))
        return otherwise


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo(name: str) -> str:
    """A value that Linux tells of its first processor, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")
