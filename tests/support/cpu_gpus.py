"""GPUs that are none: a copy on the CPU that behaves as FAISS's GPU indexes do where that differs from the CPU's.

It ignores selectors, refuses k and nprobe above 2,048, rounds queries to fp16 where rows are, holds no more than it has
room for, and breaks where two threads search one GPU at once. All else is FAISS's own code for the CPU.
"""

from __future__ import annotations

import threading

import faiss
import numpy as np

ROOM = 1 << 40


class CpuGpu:
    def __init__(self, number=0, room=ROOM):
        self.name, self.room = f"gpu:{number}", room
        self.copies, self.searches, self.broken = 0, [], False
        self.busy = threading.Lock()

    def free(self):
        return self.room

    def copied(self, index):
        size = index.ntotal * (index.code_size if hasattr(index, "code_size") else 4 * index.d)
        if size > self.room:
            raise RuntimeError("Error: alloc fail type FlatData\nand a second line")
        assert index.ntotal
        self.copies += 1
        return OnAGpu(self, faiss.clone_index(index))


class OnAGpu:
    def __init__(self, gpu, index):
        self.gpu, self.index = gpu, index

    def search(self, queries, k, params=None):
        assert k <= 2_048
        assert getattr(params, "nprobe", 1) <= 2_048
        if params is not None:
            params.sel = None
        if isinstance(self.index, faiss.IndexScalarQuantizer):
            queries = queries.astype(np.float16).astype(np.float32)
        assert self.gpu.busy.acquire(blocking=False), "two threads on one GPU"
        try:
            if self.gpu.broken:
                raise RuntimeError("CUDA error 2 out of memory")
            self.gpu.searches.append(len(queries))
            return self.index.search(queries, k, params=params)
        finally:
            self.gpu.busy.release()
