"""GPUs that hold copies of an index, some of its rows each. One thread at a time searches each GPU.

FAISS's GPU indexes are not safe even for concurrent searches, which share their GPU's temporary memory, so each GPU has
a lock. Queries that arrive during a search wait for it and are then searched together: most of a GPU's time goes into
reading the vectors, and one pass serves all queries.

Errors that FAISS raises (mostly out of memory) become a `DeviceError`. FAISS aborts the process for others, such as a
GPU that falls off the bus; nothing here prevents that.

What this module does not know: filters, exact scores, when a copy is worth making.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from indexer.errors import DeviceError
from indexer.types import Vectors
from indexer.vectors.faiss_index import faiss, installed
from indexer.vectors.protocol import NO_ID, Ids, Scores

MOST = 2048
"""The largest k and nprobe of FAISS's GPU kernels."""
TOGETHER = 1024
"""The most queries that are searched together."""

Found = tuple[Scores, Ids]


class Gpu(Protocol):
    """A processor with its own memory."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    def free(self) -> int:
        """Free bytes of its memory; 0 if unknown."""
        ...

    def copied(self, index: Any) -> Any:
        """A copy, in its memory, of a FAISS index on the CPU: flat, scalar quantizer (fp16) or inverted file."""
        ...


class CudaGpu:
    """A CUDA device, through FAISS's own GPU code (cuVS supports neither fp16 nor 8 bits).

    Args:
        number: Its number among the visible ones.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        # One per GPU, not per index: each reserves up to 1.5 GB of temporary memory.
        self._resources = faiss.StandardGpuResources()
        self._options = faiss.GpuClonerOptions()
        self._options.use_cuvs = False

    @property
    def name(self) -> str:
        """Its name and number; torch uses the same number."""
        return f"cuda:{self._number}"

    def free(self) -> int:
        """Free memory as torch reports it; FAISS has no call for this."""
        import torch

        return int(torch.cuda.mem_get_info(self._number)[0]) if torch.cuda.is_available() else 0

    def copied(self, index: Any) -> Any:
        """FAISS turns a scalar quantizer with fp16 into a flat GPU index with fp16."""
        return faiss.index_cpu_to_gpu(self._resources, self._number, index, self._options)


def cuda_gpus() -> list[Gpu]:
    """Every visible CUDA device.

    Raises:
        DeviceError: There is none, or FAISS is a CPU build.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        names = " ".join(installed()) or "faiss"
        raise DeviceError(
            f"device='cuda' needs a GPU build of FAISS; {names} {faiss.__version__} is for the CPU.",
            f"Run: pip uninstall -y {names}\nthen: pip install 'underdrawing[gpu]'",
        )
    count = faiss.get_num_gpus()
    if count == 0:
        raise DeviceError("FAISS sees no CUDA device.", "Choose device='cpu', or check nvidia-smi.")
    return [CudaGpu(number) for number in range(count)]


@dataclass(frozen=True)
class CopyKey:
    """The identity of a copy.

    Attributes:
        space: The vectors' space, and how they are indexed.
        names: The checksums of their segments.
    """

    space: tuple[str | float, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """The share of an index that one GPU will hold.

    Attributes:
        index: The index on the CPU; only its copy on the GPU is kept.
        ids: The id of each row that `index` finds; None if it finds ids itself.
    """

    index: Any
    ids: Ids | None = None


class Copies:
    """An index in GPU memory, freed with its last user. Use `Gpus.hold`.

    Attributes:
        bytes: Estimated memory.
    """

    def __init__(self, gpus: Gpus, shares: Sequence[Share], size: int) -> None:
        self.bytes = size
        held = [_Held(gpu, gpus.copied(gpu, share.index), share.ids) for gpu, share in enumerate(shares)]
        # Not a bound method: a reference cycle would free the memory late.
        self._together = Together(partial(_on_all, gpus, held, hasattr(shares[0].index, "nlist")))
        self._pid = os.getpid()

    def search(self, queries: Vectors, fetch: int, effort: int) -> Found:
        """The best rows of all GPUs.

        Args:
            queries: (n, dim) float32.
            fetch: Rows per query, at most `MOST`.
            effort: nprobe of an inverted file, at most `MOST`.

        Returns:
            Scores, best first, and ids, both (n, fetch), padded with -inf and -1.

        Raises:
            DeviceError: A GPU failed, or this process was forked from the one that holds the copies.
        """
        if self._pid != os.getpid():
            raise DeviceError("A GPU's memory does not cross a fork.", "Open the collection in the child.")
        return self._together.search(queries, fetch, effort)


@dataclass(frozen=True)
class _Held:
    gpu: int
    index: Any
    ids: Ids | None


def _on_all(
    gpus: Gpus, held: Sequence[_Held], inverted: bool, queries: Vectors, fetch: int, effort: int
) -> Found:  # fmt: skip
    parameters = faiss.SearchParametersIVF(nprobe=effort) if inverted else None

    def on(own: _Held) -> Found:
        scores, rows = gpus.search(own.gpu, own.index, queries, fetch, parameters)
        ids = rows if own.ids is None else np.where(rows == NO_ID, NO_ID, own.ids[rows])
        return np.where(ids == NO_ID, np.float32(-np.inf), scores), ids

    found = gpus.on_each(on, held)
    if len(found) == 1:
        return found[0]
    scores, ids = (np.concatenate(column, axis=1) for column in zip(*found, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :fetch]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


class Gpus:
    """The GPUs of one collection, with their locks and the copies they hold.

    Args:
        gpus: At least one.
    """

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = list(gpus)
        self._locks = [threading.Lock() for _ in gpus]
        self._pool = ThreadPoolExecutor(len(self._gpus), "gpu")
        self._copies: WeakValueDictionary[CopyKey, Copies] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._gpus)

    @property
    def available(self) -> int:
        """Bytes available for an index that may replace those held now.

        Shares are of equal size, so the fullest GPU decides.
        """
        held = sum(copies.bytes for copies in self._copies.values())
        return len(self) * min(gpu.free() for gpu in self._gpus) + held

    def keys(self) -> list[CopyKey]:
        """Estimated bytes of all copies held."""
        return list(self._copies)

    def hold(self, key: CopyKey, shares: Callable[[int], Sequence[Share]], size: int) -> Copies:
        """A copy of an index; the existing one if there is one.

        Call it from one thread at a time: a collection opens its snapshots under a lock.

        Args:
            key: The copy's identity.
            shares: Given the number of GPUs, the shares, none of them empty; there may be fewer shares than GPUs.
            size: Its bytes.

        Raises:
            DeviceError: A GPU fails or is out of memory.
        """
        copies = self._copies.get(key)
        if copies is None:
            try:
                copies = Copies(self, shares(len(self)), size)
            except DeviceError:
                gc.collect()  # copies kept alive only by a cycle take up memory
                copies = Copies(self, shares(len(self)), size)
            self._copies[key] = copies
        return copies

    def copied(self, gpu: int, index: Any) -> Any:
        """An index in one GPU's memory; raises as `hold`."""
        with self._locks[gpu]:
            try:
                return self._gpus[gpu].copied(index)
            except (RuntimeError, MemoryError) as error:
                raise DeviceError(f"{self._gpus[gpu].name} cannot hold the index: {_line(error)}.") from error

    def search(self, gpu: int, index: Any, queries: Vectors, fetch: int, parameters: Any) -> Found:
        """One FAISS search on one GPU: scores and rows, -1 for none.

        Raises:
            DeviceError: It failed.
        """
        with self._locks[gpu]:
            try:
                scores, rows = index.search(queries, fetch, params=parameters)
            except (RuntimeError, MemoryError) as error:
                raise DeviceError(f"{self._gpus[gpu].name} failed: {_line(error)}.") from error
        return scores, rows

    def on_each(self, work: Callable[[Any], Found], held: Sequence[Any]) -> list[Found]:
        """Run the work on all GPUs at once."""
        return [work(held[0])] if len(held) == 1 else list(self._pool.map(work, held))


@dataclass(eq=False)
class _Request:
    queries: Vectors
    plan: tuple[int, int]
    answer: Found | None = None
    failure: DeviceError | None = None


class Together:
    """Merges waiting searches into one, if they ask for the same number of neighbors with the same effort.

    No search waits to be merged: if none is running, it starts at once.

    Args:
        search: Takes queries, the number to fetch and the effort; called by one thread at a time.
    """

    def __init__(self, search: Callable[[Vectors, int, int], Found]) -> None:
        self._search = search
        self._turn, self._arrival = threading.Lock(), threading.Lock()
        self._waiting: list[_Request] = []

    def search(self, queries: Vectors, fetch: int, effort: int) -> Found:
        """One caller's part of the answer. If the merged search raises, every caller gets the error."""
        own = _Request(queries, (fetch, effort))
        with self._arrival:
            self._waiting.append(own)
        with self._turn:
            if own.answer is None and own.failure is None:
                self._serve(own)
        if own.failure is not None:
            raise DeviceError(own.failure.message, own.failure.remedy) from own.failure
        assert own.answer is not None
        return own.answer

    def _serve(self, own: _Request) -> None:
        batch, rows = [own], len(own.queries)
        with self._arrival:
            for each in self._waiting:
                if each is not own and each.plan == own.plan and rows + len(each.queries) <= TOGETHER:
                    batch.append(each)
                    rows += len(each.queries)
            self._waiting = [each for each in self._waiting if each not in batch]
        try:
            scores, ids = self._search(np.concatenate([each.queries for each in batch]), *own.plan)
        except DeviceError as error:
            for each in batch:
                each.failure = error
            return
        start = 0
        for each in batch:
            stop = start + len(each.queries)
            each.answer, start = (scores[start:stop], ids[start:stop]), stop


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
