"""A collection searched on GPUs: the same answers, one copy for many generations, and a note if the CPU is used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from answers import asked, contents, found
from cpu_gpus import CpuGpu
from typer.testing import CliRunner

from indexer import Collection, Device, Document, IndexKind, IndexSettings
from indexer.errors import DeviceError
from indexer.types import Center
from indexer.vectors import faiss_gpu as gpu_index
from indexer.vectors import gpus, rescoring
from pipelines.cli.app import app
from retrieval import Query, Retriever

CUDA = IndexSettings(device=Device.CUDA)
COUNT = 120


@pytest.fixture
def gpu(monkeypatch):
    own = CpuGpu()
    monkeypatch.setattr(gpus, "cuda_gpus", lambda: [own])
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 0)
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 0)
    return own


@pytest.fixture
def folder(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document(f"d{n}", text=f"word{n}", fields={"n": n}) for n in range(COUNT)])
    return tmp_path / "shop"


@pytest.fixture
def both(folder, closing, gpu):
    """The collection on a GPU, and on the CPU."""
    return closing(Collection.open(folder, index=CUDA)), closing(Collection.open(folder))


def agree(on_gpu, plain, plan="gpu-scan", **options):
    queries = asked("word3", "word77", "something else")
    mine, theirs = (each.snapshot().search(queries, 10, **options) for each in (on_gpu, plain))
    np.testing.assert_array_equal(mine.ids, theirs.ids)
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert mine.plan == plan


def test_the_dead_and_the_filtered_are_not_found(both):
    on_gpu, plain = both
    agree(on_gpu, plain)
    agree(on_gpu, plain, where={"n": {"$lt": 60}})
    agree(on_gpu, plain, exclude=["d3", "d77"])
    plain.delete(["d3", *(f"d{n}" for n in range(80, 90))])
    agree(on_gpu, plain)
    agree(on_gpu, plain, where={"n": {"$gte": 60}}, exclude=["d100"])
    assert on_gpu.snapshot().notes == ()


def test_later_generations_use_the_same_copy_until_too_much_is_beside_it(both, gpu):
    on_gpu, plain = both
    assert found(on_gpu, "word3", 1) == ["d3"]
    for number in range(3):
        plain.add([Document(f"new{number}", text=f"fresh{number}")])
        assert found(on_gpu, f"fresh{number}", 1) == [f"new{number}"]
        agree(on_gpu, plain, plan="gpu-scan and scan")
    plain.delete(["d5"])
    agree(on_gpu, plain, plan="gpu-scan and scan")
    assert gpu.copies == 1
    plain.add([Document(f"more{n}", text=f"more{n}") for n in range(COUNT // 3)])
    agree(on_gpu, plain)
    assert gpu.copies == 2
    plain.compact()
    agree(on_gpu, plain)
    assert gpu.copies == 3
    assert len(on_gpu.store.gpus.keys()) == 1  # the others are given back


def test_an_inverted_file_is_kept_on_disk_and_copied_once(folder, closing, gpu):
    settings = IndexSettings(IndexKind.IVF, device=Device.CUDA, half=True)
    with Collection.open(folder, index=settings) as first:
        assert found(first, "word9", 1) == ["d9"]
        assert first.snapshot().search(asked("word9"), 3).plan == "scan"
        assert "not built yet" in first.info()["index"]
        first.build_index()
        assert found(first, "word9", 1) == ["d9"]
        assert first.snapshot().search(asked("word9"), 3).plan == "gpu-ivf"
        assert first.info()["recall_at_10"] >= 0.95
    [file] = (folder / "indexes").glob("*.faiss")
    written = file.stat().st_mtime_ns
    second = closing(Collection.open(folder, index=settings))
    second.add([Document("new", text="fresh")])
    assert found(second, "fresh", 1) == ["new"]
    second.delete(["d9"])
    assert "d9" not in found(second, "word9", 10, where={"n": {"$gte": 0}})
    assert (gpu.copies, file.stat().st_mtime_ns) == (2, written)


def test_without_gpus_the_cpu_answers_and_every_result_says_so(folder, closing, monkeypatch):
    def none():
        raise DeviceError("FAISS sees no CUDA device.")

    monkeypatch.setattr(gpus, "cuda_gpus", none)
    shop = closing(Collection.open(folder, index=CUDA))
    results = Retriever(shop, "text").search(Query(text="word3"), k=2)
    assert [hit.id for hit in results.hits][:1] == ["d3"]
    assert results.plan == "scan"
    assert "The CPU is searched: FAISS sees no CUDA device." in results.notes
    assert shop.snapshot().scans
    assert shop.info()["index"].startswith("The CPU is searched: ")
    told = shop.explain()
    assert (told["device"], told["kind"]) == ("cpu", "exact")
    assert told["reason"].startswith("The CPU is searched: ")


@pytest.mark.parametrize(
    ("settings", "room", "reason"),
    [
        (CUDA, 1_000, "are allowed"),
        (IndexSettings(device=Device.CUDA, memory_budget="1GB"), 1_000, "gpu:0 cannot hold the index: Error: alloc"),
        (IndexSettings(IndexKind.HNSW, device=Device.CUDA), 10**9, "FAISS has no HNSW on GPUs"),
    ],
)
def test_what_a_card_cannot_hold_is_searched_on_the_cpu(folder, closing, gpu, settings, room, reason):
    gpu.room = room
    shop = closing(Collection.open(folder, index=settings))
    assert found(shop, "word3", 1) == ["d3"]
    note, *others = shop.snapshot().notes
    assert ["not built yet" in each for each in others] == [True] * (settings.kind is IndexKind.HNSW)
    assert note.startswith("The CPU is searched: ")
    assert reason in note
    assert gpu.searches == []


def test_a_card_that_fails_later_is_told_of_from_then_on(both, gpu):
    on_gpu, plain = both
    retriever = Retriever(on_gpu, "text")
    assert retriever.search(Query(text="word3")).notes == ()
    gpu.broken = True
    results = retriever.search(Query(text="word3"))
    assert [hit.id for hit in results.hits] == [hit.id for hit in Retriever(plain, "text").search(Query(text="word3"))]
    assert results.notes == ("The CPU is searched: gpu:0 failed: CUDA error 2 out of memory.",)
    assert results.plan == "scan"


def test_a_mixed_collection_is_centred_on_gpus_too(folder, closing, gpu):
    from answers import png

    with Collection.open(folder) as plain:
        plain.add([Document(f"p{n}", image=png(n, 2 * n, 9)) for n in range(COUNT)])
        told = contents(plain)
    shop = closing(Collection.open(folder, index=CUDA))
    assert not shop.snapshot().scans
    on_gpu = Retriever(shop, "text", center=Center.ON).search(Query(text="word8"), k=20)
    with Collection.open(folder) as plain:
        expected = Retriever(plain, "text", center=Center.ON).search(Query(text="word8"), k=20)
    assert [hit.id for hit in on_gpu] == [hit.id for hit in expected]
    assert len(told) == 2 * COUNT


def test_the_command_line_asks_for_gpus(folder, gpu):
    call = ["search", str(folder), "word3", "--index-device", "cuda", "-k", "1", "--json"]
    told = json.loads(CliRunner().invoke(app, call).stdout)
    assert (told["hits"][0]["id"], told["plan"], told["notes"]) == ("d3", "gpu-scan", [])
    explained = CliRunner().invoke(app, ["info", str(folder), "--explain", "--index-device", "cuda", "--json"])
    assert json.loads(explained.stdout)["device"] == "cuda"
    wrong = CliRunner().invoke(app, ["info", str(folder), "--index-device", "tpu"])
    assert wrong.exit_code == 2


@pytest.mark.gpu
def test_on_a_gpu(folder, closing, monkeypatch):
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 0)
    for settings in (CUDA, IndexSettings(device=Device.CUDA, half=True)):
        shop, plain = closing(Collection.open(folder, index=settings)), closing(Collection.open(folder))
        agree(shop, plain)
        agree(shop, plain, where={"n": {"$lt": 60}}, exclude=["d3"])
        assert shop.snapshot().notes == ()
