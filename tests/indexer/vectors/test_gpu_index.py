"""GPU indexes on fake GPUs. Tests marked `differential` check answers; those marked `gpu` need a GPU."""

import os
import threading
import time

import numpy as np
import pytest
from cpu_gpus import CpuGpu

from indexer.errors import DeviceError
from indexer.vectors import faiss_gpu as gpu_index
from indexer.vectors import gpus as cards_module
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_gpu import GpuIndex
from indexer.vectors.faiss_index import FaissIndex, faiss
from indexer.vectors.gpus import Copies, CopyKey, Gpus, Share, Together, cuda_gpus
from indexer.vectors.protocol import IndexKind, IndexSettings
from indexer.vectors.selection import Codes
from indexer.vectors.unit import unit_rows

ROWS, DIM = 3_000, 24
KEY = CopyKey(("space",), ("segment",))


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(5)
    return unit_rows(rng.standard_normal((20, DIM))[rng.integers(0, 20, ROWS)] + rng.standard_normal((ROWS, DIM)))


@pytest.fixture(scope="module")
def exact(vectors):
    return ExactIndex([(vectors, np.arange(ROWS) + 7)])


@pytest.fixture(scope="module")
def queries(vectors):
    return unit_rows(vectors[::300] + 0.3 * np.random.default_rng(6).standard_normal((10, DIM)))


@pytest.fixture(autouse=True)
def no_shortcut(monkeypatch):
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 0)


def flat(exact, *own, codes=Codes.FLOAT32):
    return GpuIndex.flat(Gpus(own), KEY, exact, codes)


def same(found, expected):
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("codes", [Codes.FLOAT32, Codes.FP16])
@pytest.mark.parametrize("count", [1, 3])
def test_every_card_has_its_share_and_the_answer_is_exact(exact, queries, codes, count):
    own = [CpuGpu(number) for number in range(count)]
    index = flat(exact, *own, codes=codes)
    assert [gpu.copies for gpu in own] == [1] * count
    for allowed in (None, np.arange(7, ROWS + 7, 2), np.arange(7, ROWS + 7, 20)):
        found = index.search(queries, 10, allowed)
        same(found, exact.search(queries, 10, allowed))
        assert found.plan == "gpu-scan"
    assert all(set(gpu.searches) == {len(queries)} for gpu in own)


def test_queries_of_any_length_are_searched_in_half_precision(exact, queries):
    index = flat(exact, CpuGpu(), codes=Codes.FP16)
    lengths = np.float32([[1e-12], [1e-9], [1e-3], [0.5], [1], [2], [700], [1e6], [1e12], [0]])
    found, expected = index.search(lengths * queries, 5), exact.search(lengths * queries, 5)
    same(found, expected)
    alone = index.search(1e6 * queries, 5)
    assert alone.plan == "gpu-scan"


def test_what_two_bytes_cannot_tell_apart_is_settled_in_full(queries):
    """Rows that differ by less than a step of fp16: the GPU orders them as it likes, so more has to be fetched."""
    near = unit_rows(queries[:1] + 1e-4 * np.random.default_rng(1).standard_normal((2_500, DIM)))
    exact = ExactIndex([(near, np.arange(len(near)))])
    gpu = CpuGpu()
    same(flat(exact, gpu, codes=Codes.FP16).search(queries, 10), exact.search(queries, 10))
    assert len(gpu.searches) > 1


def test_too_much_for_a_card_is_exact_on_the_cpu(exact, queries):
    gpu = CpuGpu()
    index = flat(exact, gpu)
    found = index.search(queries, 2_040)
    same(found, exact.search(queries, 2_040))
    few = index.search(queries, 10, np.arange(7, 40))
    same(few, exact.search(queries, 10, np.arange(7, 40)))
    assert {found.plan, few.plan} == {"scan", "pick"}
    assert gpu.searches == []


@pytest.mark.parametrize("codes", [Codes.FLOAT32, Codes.FP16, Codes.SQ8])
def test_an_inverted_file_is_divided_without_loss(exact, vectors, queries, codes):
    built = FaissIndex.build(IndexKind.IVF, [(vectors, np.arange(ROWS) + 7)], IndexSettings(), codes=codes)
    one, three = (GpuIndex.inverted(Gpus([CpuGpu(number) for number in range(count)]), KEY, built) for count in (1, 3))
    for allowed in (None, np.arange(7, ROWS + 7, 2)):
        same(three.search(queries, 10, allowed), one.search(queries, 10, allowed))
    same(one.search(queries, 10), built.search(queries, 10))
    assert one.search(queries, 10).plan == "gpu-ivf"
    assert (one.search(queries, 10, np.arange(7, ROWS + 7, 3)).ids >= 0).all()
    assert three.metadata == {**built.metadata, "gpus": 3}


def test_a_card_that_fails_costs_no_answer_and_is_told_of(exact, queries):
    gpus = [CpuGpu(0), CpuGpu(1)]
    index = flat(exact, *gpus)
    assert index.warning == ""
    gpus[1].broken = True
    found = index.search(queries, 10)
    same(found, exact.search(queries, 10))
    assert found.plan == "scan"
    assert index.warning == "The CPU is searched: gpu:1 failed: CUDA error 2 out of memory."
    before = list(gpus[0].searches)
    same(index.search(queries, 3), exact.search(queries, 3))
    assert gpus[0].searches == before  # it is not tried again


def test_without_room_there_is_no_copy(exact):
    with pytest.raises(DeviceError, match=r"gpu:0 cannot hold the index: Error: alloc fail type FlatData\.$"):
        flat(exact, CpuGpu(room=1_000))


def test_room_that_a_cycle_still_holds_is_given_back_first(exact):
    class Full(CpuGpu):
        tries = 0

        def copied(self, index):
            self.tries += 1
            if self.tries == 1:
                raise RuntimeError("full")
            return super().copied(index)

    gpu = Full()
    flat(exact, gpu)
    assert gpu.tries == 2


def test_a_copy_is_shared_and_gone_with_its_last_user(exact):
    gpu = CpuGpu(room=10**6)
    gpus = Gpus([gpu])
    first = GpuIndex.flat(gpus, KEY, exact, Codes.FLOAT32)
    second = GpuIndex.flat(gpus, KEY, exact, Codes.FLOAT32)
    assert (gpu.copies, gpus.keys(), gpus.available) == (1, [KEY], 10**6 + ROWS * DIM * 4)
    del first
    assert gpus.keys() == [KEY]
    del second
    assert (gpus.keys(), gpus.available) == ([], 10**6)


def test_the_fullest_card_decides_how_much_fits():
    assert Gpus([CpuGpu(0, 500), CpuGpu(1, 200)]).available == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_searches_on_the_cpu(exact, queries):
    index = flat(exact, CpuGpu())
    expected = exact.search(queries, 10)
    child = os.fork()
    if child == 0:
        try:
            right = np.array_equal(index.search(queries, 10).ids, expected.ids) and "fork" in (index.warning or "")
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert index.warning == ""


class Held:
    """A search that waits in its first call until it is let go."""

    def __init__(self, fails=()):
        self.begun, self.go, self.calls, self.fails = threading.Event(), threading.Event(), [], fails

    def __call__(self, queries, fetch, effort):
        self.calls.append((len(queries), fetch, effort))
        self.begun.set()
        assert self.go.wait(60)
        if len(self.calls) in self.fails:
            raise self.fails[len(self.calls)]
        return queries[:, :1], np.int64(queries[:, :1])


def crowd(search, plans):
    """Requests of rows of their own, the first alone and the others while it is under way; what each got."""
    together, answers = Together(search), {}

    def ask(place, rows, plan):
        try:
            answers[place] = together.search(np.full((rows, 2), place, np.float32), *plan)
        except (DeviceError, ValueError) as error:
            answers[place] = error

    threads = [threading.Thread(target=ask, args=(place, *each)) for place, each in enumerate(plans)]
    threads[0].start()
    assert search.begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(together._waiting) < len(plans) - 1:
        time.sleep(0.001)
    search.go.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return answers


def test_queries_that_wait_are_searched_together_and_each_gets_its_own():
    search = Held()
    answers = crowd(search, [(1, (10, 1))] + [(3, (10, 1))] * 4 + [(2, (20, 1))] * 2)
    assert search.calls[0] == (1, 10, 1)
    assert sorted(search.calls[1:]) == [(4, 20, 1), (12, 10, 1)]
    for place, (scores, ids) in answers.items():
        assert len(scores) == (1, 3, 3, 3, 3, 2, 2)[place]
        assert (ids == place).all()


def test_no_more_than_a_card_takes_well_are_searched_together(monkeypatch):
    monkeypatch.setattr(cards_module, "TOGETHER", 5)
    search = Held()
    crowd(search, [(1, (1, 1))] + [(2, (1, 1))] * 3 + [(9, (1, 1))])
    assert sorted(rows for rows, *_ in search.calls) == [1, 2, 4, 9]


def test_a_failure_reaches_all_that_it_concerns_and_nobody_else():
    failed = crowd(Held({2: DeviceError("gone")}), [(1, (1, 1))] + [(1, (1, 1))] * 3)
    assert [str(failed[place]) for place in (1, 2, 3)] == ["gone"] * 3
    assert not isinstance(failed[0], Exception)
    odd = crowd(Held({2: ValueError("no failure of a GPU")}), [(1, (1, 1))] + [(1, (1, 1))] * 3)
    assert sum(isinstance(each, ValueError) for each in odd.values()) == 1
    assert len(odd) == 4


def test_threads_share_gpus(exact, queries):
    gpus = [CpuGpu(0), CpuGpu(1)]
    index, expected, wrong = flat(exact, *gpus), exact.search(queries, 10), []

    def ask():
        for place in range(len(queries)):
            found = index.search(queries[place : place + 1], 10)
            if not (np.array_equal(found.ids[0], expected.ids[place]) and found.plan == "gpu-scan"):
                wrong.append(place)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(gpus[0].searches) == 60


def test_two_copies_on_one_card_take_turns(exact, vectors, queries):
    gpu = CpuGpu()
    gpus = Gpus([gpu])
    indexes = [GpuIndex.flat(gpus, CopyKey((), (str(n),)), exact, Codes.FLOAT32) for n in range(2)]
    threads = [threading.Thread(target=index.search, args=(queries, 10)) for index in indexes * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [index.warning for index in indexes] == ["", ""]
    assert len(gpu.searches) >= 2


def test_cuda_without_a_gpu_says_how_to_get_one(monkeypatch):
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(DeviceError, match=r"(?s)needs a GPU build.*pip uninstall.*underdrawing\[gpu\]"):
        cuda_gpus()
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        cuda_gpus()


@pytest.mark.gpu
@pytest.mark.parametrize("codes", [Codes.FLOAT32, Codes.FP16, Codes.SQ8])
def test_on_a_gpu(exact, vectors, queries, codes):
    gpus = Gpus(cuda_gpus())
    assert gpus.available > 0
    built = FaissIndex.build(IndexKind.IVF, [(vectors, np.arange(ROWS) + 7)], IndexSettings(recall=0.99), codes=codes)
    indexes = [GpuIndex.inverted(gpus, CopyKey((), ("ivf",)), built)]
    if codes is not Codes.SQ8:
        indexes.append(GpuIndex.flat(gpus, KEY, exact, codes))
    for index in indexes:
        for allowed in (None, *(np.arange(7, ROWS + 7, step) for step in (2, 10, 100))):
            found, expected = index.search(queries, 10, allowed), exact.search(queries, 10, allowed)
            assert (found.ids >= 0).all()
            assert (found.scores >= expected.scores[:, -1:]).mean() >= 0.9
            if index is not indexes[0]:
                same(found, expected)
        threads = [threading.Thread(target=index.search, args=(queries, 10)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert index.warning == ""
        assert index.search(queries, 10).plan.startswith("gpu-")


@pytest.mark.gpu
def test_a_gpu_refuses_what_it_has_no_room_for():
    [gpu, *_] = cuda_gpus()
    free = gpu.free()
    large = faiss.IndexFlat(1024, faiss.METRIC_INNER_PRODUCT)
    large.add(np.zeros((10_000, 1024), np.float32))
    copies = Copies(Gpus([gpu]), [Share(large, np.arange(10_000))], 10_000 * 4096)
    assert gpu.free() <= free - 10_000 * 4096
    del copies
