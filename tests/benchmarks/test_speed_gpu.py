"""The benchmark of cards, on one that is none: what it says is right; how fast it was does not matter here."""

from __future__ import annotations

import json

import pytest
from cpu_gpus import CpuGpu

from benchmarks.speed import gpu as speed_gpu
from indexer.vectors import faiss_gpu as gpu_index

SMALL = ["--rows", "1200", "--dim", "16", "--turns", "2"]


def test_without_a_card_it_says_so(tmp_path, capsys):
    assert speed_gpu.main([*SMALL, "--data", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("speed_gpu: device='cuda' needs a GPU build of FAISS") or "no CUDA device" in told.err
    assert told.out == ""
    assert speed_gpu.main(["--rows", "3"]) == 2


def test_every_part_compares_with_raw_faiss_and_with_the_floor(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed_gpu, "cuda_gpus", lambda: [CpuGpu(), CpuGpu(1)])
    monkeypatch.setattr(speed_gpu, "copy_bandwidth", lambda: 1200 * 16 * 4 * 1000.0)
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 50)
    assert speed_gpu.main([*SMALL, "--data", str(tmp_path), "--json", str(tmp_path / "told.json")]) == 0
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])
    assert told == json.loads((tmp_path / "told.json").read_text())
    assert told["exact"]["floor_ms"] == {"float32": 1.0, "fp16": 0.5}
    assert set(told["batch"]["ms"]) == {"card", "card-fp16", "cpu", "faiss", "faiss-fp16"}
    assert [line["good"] for part in speed_gpu.PARTS for line in told[part]["lines"]] == [True] * 9
    assert told["filters"]["plans"]["0.5"]["card"] == "gpu-scan"
    assert told["filters"]["plans"]["0.01"]["card"] == "pick"
    assert "plan gpu-scan" in told["exact"]["lines"][0]["told"]


@pytest.mark.gpu
def test_on_a_gpu(tmp_path, capsys):
    assert speed_gpu.copy_bandwidth() > 1e10
    assert speed_gpu.main([*SMALL, "--data", str(tmp_path)]) == 0
