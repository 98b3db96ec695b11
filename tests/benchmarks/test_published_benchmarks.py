"""What all published benchmarks share: every method, help that explains itself, published rows with sources."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import miniatures
import pytest
from tiny_mllm import tiny_mllm

from benchmarks.harness import published, run
from benchmarks.harness.methods import compared
from benchmarks.harness.protocol import MEANINGS, Protocol
from benchmarks.tasks import circo, cirr, fashioniq, genecis, icir, patterncom
from benchmarks.tasks.cirr import Counts
from pipelines.evaluation.qrels import Plan
from retrieval.methods import load_method

BENCHMARKS = [each.BENCHMARK for each in (cirr, fashioniq, circo, genecis, patterncom, icir)]
ROWS = json.loads(published.FILE.read_text(encoding="utf-8"))["rows"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("method", list(compared()))
def test_every_method_runs_through_the_bundled_models(method, run_benchmark, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(cirr, "COUNTS", {"val": Counts(4, 12, 4)})
    folder = tmp_path_factory.getbasetemp() / "shared-cirr"
    if not folder.exists():
        miniatures.cirr(folder, "val", images=12, queries=4, references=4)
    more, model = [], "bundled:emoji-clip"
    if method == "caption":
        names = {picture.name: f"a square, the {n}th" for n, picture in enumerate(sorted(folder.rglob("*.png")))}
        (folder / "captions.json").write_text(json.dumps(names))
        more = ["--captioner", f"table:{folder / 'captions.json'}", "--rewriter", "join"]
    if method == "joint":
        model = f"mllm:{tiny_mllm(folder / 'model')}"
    code, result, out = run_benchmark(
        cirr.BENCHMARK, folder, "--method", method, "--cache", str(folder / "cache"), *more, model=model
    )
    assert code == 0, out
    assert result["method"] == method
    assert result["measures"]["R@50"]["value"] == 1.0
    drawn = result.get("drawings", {})
    assert sum(drawn.values()) == (4 if method.startswith("cig") else 0)
    assert (result["template"] is not None) == (method in ("inversion", "cig-reinvert", "cig-embed", "cig-product"))
    assert "notes" not in result


def test_a_template_is_told_and_stored(run_benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(cirr, "COUNTS", {"val": Counts(4, 12, 4)})
    miniatures.cirr(tmp_path / "cirr", "val", images=12, queries=4, references=4)
    arguments = ("--method", "inversion", "--template", "a photo of {word} that {text}")
    code, result, out = run_benchmark(cirr.BENCHMARK, tmp_path / "cirr", *arguments, model="bundled:emoji-clip")
    assert code == 0, out
    assert result["template"] == "a photo of {word} that {text}"
    assert "template: a photo of {word} that {text}" in out


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_help_explains_itself(benchmark, capsys):
    with pytest.raises(SystemExit, match="0"):
        run.main(benchmark, ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    home = re.search(r"https://\S+", benchmark.home)[0]
    for expected in ("Expected in DIR", home, "--protocol", "--weights", "--json", "Nothing is downloaded"):
        assert expected in told
    assert ("--submission" in told) == bool(benchmark.hidden)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_the_protocol_is_explained_choice_by_choice(benchmark, capsys):
    assert run.main(benchmark, ["--protocol"]) == 0
    told = capsys.readouterr().out
    for field in fields(Protocol):
        mine = getattr(benchmark.choices.default, field.name)
        assert f"* {mine}" in told
        assert MEANINGS[field.name][mine] in told
        for other in benchmark.choices.open.get(field.name, ()):
            assert MEANINGS[field.name][other] in told


def test_every_choice_has_a_meaning():
    for field in fields(Protocol):
        kinds = {type(choice) for choice in MEANINGS[field.name]}
        [kind] = kinds
        assert set(MEANINGS[field.name]) == set(kind)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['benchmark']}-{row['label']}")
def test_a_published_row_can_be_measured_and_has_a_source(row):
    [benchmark] = [each for each in BENCHMARKS if each.name == row["benchmark"]]
    assert row["split"] in benchmark.splits
    assert set(row["methods"]) <= compared().keys()
    assert row["source"]
    assert all(0 < value < 100 for value in row["measures"].values())
    protocol = benchmark.choices.with_given(
        {name: value for name, value in row["protocol"].items() if name != "pretrained"}
    )
    assert set(row["measures"]) <= set(benchmark.plan(protocol).names)
    for method in row["methods"]:
        assert set(row.get("weights", {})) <= load_method(method).reads


def test_rows_are_found_by_backbone_and_compared_only_with_the_same_weights():
    found = published.rows_for("cirr", "test1", "inversion", "open_clip:ViT-L-14-quickgelu/openai")
    assert {row["label"] for row in found} == {
        "Pic2Word, L/14", "SEARLE-XL, L/14", "LinCIR, L/14", "LinCIR, demo network, L/14",
    }  # fmt: skip
    result = {
        "protocol": {"reference": "removed", "preprocessing": "own"}, "limit": None, "measures": {},
        "weights": {"inversion": 1.0, "image": 0.0},
    }  # fmt: skip
    [lincir] = [row for row in found if row["label"] == "LinCIR, L/14"]
    same = published.compared(lincir, result | {"model": "open_clip:ViT-L-14/openai"})
    assert "differs" not in same
    other = published.compared(lincir, result | {"model": "open_clip:ViT-L-14/laion2b_s32b_b82k"})
    assert other["differs"] == {"pretrained": {"published": "openai", "here": "laion2b_s32b_b82k"}}
    mixed = published.compared(lincir, result | {"model": "open_clip:ViT-L-14/openai", "weights": {"inversion": 0.5}})
    assert mixed["differs"]["weight inversion"] == {"published": 1.0, "here": 0.5}
    assert published.rows_for("cirr", "val", "inversion", "open_clip:ViT-L-14/openai") == []


def test_plans_measure_what_papers_report():
    assert {each.name: each.plan(each.choices.default).names for each in BENCHMARKS} == {
        "cirr": ("R@1", "R@5", "R@10", "R@50", "Rsub@1", "Rsub@2", "Rsub@3"),
        "fashioniq": ("R@1", "R@5", "R@10", "R@50"),
        "circo": ("R@5", "R@10", "R@25", "R@50", "mAP@5", "mAP@10", "mAP@25", "mAP@50"),
        "genecis": ("R@1", "R@2", "R@3"),
        "patterncom": ("R@1", "R@5", "R@10", "mAP"),
        "icir": ("R@1", "R@5", "R@10", "mAP"),
    }
    assert Plan().names == ("R@1", "R@5", "R@10", "mAP@10", "Rsub@1")
