"""`underdrawing doctor`: what it reports, and what it says if something is missing."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from indexer.errors import MissingExtraError, UnderdrawingError
from pipelines.diagnostics import doctor
from pipelines.diagnostics.plugins import Found
from retrieval.methods import METHODS
from retrieval.service import SearchService

KEYS = {
    "versions", "processor", "threads", "devices", "device", "bf16", "faiss", "bundled", "smoke", "plugins", "problems", "well",
}  # fmt: skip
HEALTHY = doctor.Diagnosis(
    versions={"python": "3.11.7", "psycopg": None},
    processor="A processor",
    threads=2,
    devices=(),
    device="cpu",
    bf16=doctor.Bf16(("avx512_bf16",), 2.5),
    faiss={"version": "1.15.1", "packages": {"faiss-cpu": "1.15.1"}, "compile_options": "AVX2", "gpus": 0},
    bundled={"emoji-clip": True},
    smoke=doctor.Smoke(True, "8 documents", 12.0),
)


@pytest.fixture
def found(monkeypatch):
    """Let the command find what the test says."""
    return lambda diagnosis: monkeypatch.setattr(doctor, "examine", lambda: diagnosis)


def test_this_machine_is_examined_as_a_whole(run, monkeypatch):
    monkeypatch.setattr(doctor, "bf16_speedup", lambda: 2.0)
    done = run("doctor", "--json")
    assert done.exit_code == 0, done.stdout
    told = json.loads(done.stdout)
    assert set(told) == KEYS
    assert told["well"] is told["smoke"]["passed"] is True
    assert {
        "python",
        "underdrawing",
        "torch",
        "open-clip-torch",
        "diffusers",
        "sqlalchemy",
        "sqlite",
        "pillow",
        "numpy",
    } <= set(told["versions"])
    assert told["versions"]["torch"]
    assert told["processor"]
    assert told["threads"] >= 1
    assert told["faiss"]["packages"]


def test_bfloat16_is_measured():
    assert math.isfinite(doctor.bf16_speedup(seconds=0.01))
    assert doctor.Bf16((), 1.31).pays
    assert not doctor.Bf16(("avx512_bf16",), 1.2).pays
    assert not doctor.Bf16(("avx512_bf16",), None).pays


def test_the_page_shows_everything(run, found):
    found(HEALTHY)
    done = run("doctor")
    assert done.exit_code == 0
    for line in (
        "python   3.11.7",
        "psycopg  not installed",
        "processor  A processor, 2 threads",
        "bfloat16   2.5 times as fast as float32; --dtype bfloat16 pays (avx512_bf16)",
        "devices    none besides the CPU",
        "runs on    cpu (--device names another)",
        "package     faiss-cpu 1.15.1",
        "emoji-clip  there",
    ):
        assert f"  {line}\n" in done.stdout
    assert done.stdout.endswith("A search works. 8 documents, in 12 ms\n")


def test_what_is_missing_is_named_with_its_remedy_and_is_no_failure(run, found, monkeypatch):
    def missing():
        raise MissingExtraError("faiss", "cpu", "This index")

    problems = []
    assert doctor._or_problem(missing, None, problems) is None
    assert doctor._or_problem(lambda: 3, None, problems) == 3
    found(doctor.Diagnosis(**{**vars(HEALTHY), "faiss": None, "problems": tuple(problems)}))
    done = run("doctor")
    assert done.exit_code == 0
    assert "not usable" in done.stdout
    assert "pip install 'underdrawing[cpu]'" in done.stdout


def test_what_packages_add_is_listed_with_what_is_wrong_with_it(run, found):
    added = (Found("method", "mine", "some-package 1.0", None), Found("reader", "h5", "other 2.0", "It is broken."))
    found(doctor.Diagnosis(**{**vars(HEALTHY), "plugins": added}))
    done = run("doctor")
    assert "Plugins\n  method mine  from some-package 1.0\n  reader h5    It is broken.\n" in done.stdout
    assert json.loads(run("doctor", "--json").stdout)["plugins"][0]["name"] == "mine"


def test_a_driver_without_a_device_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "none")
    assert doctor.devices() == ()
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path)
    with pytest.raises(UnderdrawingError, match="torch sees no CUDA device"):
        doctor.devices()


def test_the_smoke_search_notices_a_wrong_answer(run, found, monkeypatch):
    assert doctor.smoke_search().passed
    right = SearchService.search

    def without_filter(self, request):
        return right(self, replace(request, where=None))

    monkeypatch.setattr(SearchService, "search", without_filter)
    assert "filtered search found cat" in doctor.smoke_search().detail

    def one_short(self, request):
        return right(self, replace(request, k=request.k - 1))

    monkeypatch.setattr(SearchService, "search", one_short)
    failed = doctor.smoke_search()
    assert not failed.passed
    assert "found cat" in failed.detail
    found(doctor.Diagnosis(**{**vars(HEALTHY), "smoke": failed}))
    done = run("doctor")
    assert done.exit_code == 1
    assert "A search fails." in done.stdout


def test_the_smoke_search_survives_what_it_looks_for(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SearchService, "search", full)
    assert doctor.smoke_search() == doctor.Smoke(False, "[Errno 28] No space left on device", pytest.approx(0, abs=1e6))


def test_models_can_be_copied_into_a_call(run, monkeypatch):
    monkeypatch.setattr(doctor, "open_clip_models", lambda: {"ViT-B-32": ["openai", "laion2b"]})
    monkeypatch.setattr(doctor, "bundled_models", lambda: {"emoji-clip": True, "emoji-inversion": True})
    assert run("doctor", "--models").stdout.splitlines() == [
        "bundled:emoji-clip", "open_clip:ViT-B-32/openai", "open_clip:ViT-B-32/laion2b",
    ]  # fmt: skip
    assert json.loads(run("doctor", "--models", "--json").stdout) == {
        "bundled": ["bundled:emoji-clip"], "open_clip": {"ViT-B-32": ["openai", "laion2b"]},
    }  # fmt: skip


def test_methods_are_listed_with_a_line_about_each(run):
    told = json.loads(run("doctor", "--methods", "--json").stdout)
    assert told == METHODS.help()
    shown = run("doctor", "--methods").stdout
    assert all(any(name in line and help in line for line in shown.splitlines()) for name, help in told.items())


def test_published_models_are_those_of_open_clip(monkeypatch):
    known = [("ViT-B-32", "openai"), ("ViT-B-32", "laion2b"), ("ViT-L-14", "openai")]
    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(list_pretrained=lambda: known))
    assert doctor.open_clip_models() == {"ViT-B-32": ["openai", "laion2b"], "ViT-L-14": ["openai"]}
