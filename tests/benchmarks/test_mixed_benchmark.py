"""The mixed benchmark: what is stored and asked, and how shares are counted."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from benchmarks.harness import run
from benchmarks.tasks import mixed
from indexer.bundled import CORPUS
from indexer.types import Modality
from retrieval.documents import Ranking


@pytest.fixture(scope="module")
def rows():
    return pq.read_table(CORPUS).to_pylist()


def test_each_concept_is_one_document_and_a_third_of_each_kind(rows):
    pool = mixed.pool_of(mixed.build(rows))
    assert {each.id for each in pool.documents} == {row["concept"] for row in rows}
    counts = Counter(pool.kinds.values())
    assert len(counts) == 3
    assert min(counts.values()) > 0.95 * len(pool.documents) / 3
    for document in pool.documents:
        kind = pool.kinds[document.id]
        assert (document.text is not None, document.image is not None) == (
            kind is not Modality.IMAGE,
            kind is not Modality.TEXT,
        )
    assert mixed.pool_of(mixed.build(rows[::-1])).kinds == pool.kinds


def test_nothing_is_asked_for_by_its_name_or_by_its_own_drawing(rows):
    task = mixed.build(rows)
    names = {row["concept"]: row["text"] for row in rows}
    drawings = {document.id: document.image for document in mixed.pool_of(task).documents}
    heldout = {row["concept"]: row["split"] != "train" for row in rows}
    own = {}
    for row in rows:
        own.setdefault(row["concept"], set()).add(row["image"])
    kinds = Counter(each.aspects[0] for each in task.queries)
    assert kinds["text queries"] > 3700
    assert kinds["image queries"] > 3700
    for each in task.queries:
        [target] = each.targets
        assert ("held-out concepts" in each.aspects) == heldout[target]
        if "text queries" in each.aspects:
            assert each.query.text != names[target]
        else:
            assert each.query.image != drawings[target]
            assert each.query.image in own[target]


def test_the_three_ways_are_measured(capsys, tmp_path):
    arguments = ["--model", "fake:32", "--limit", "45", "--data", str(tmp_path), "--results", str(tmp_path / "results")]
    assert run.main(mixed.BENCHMARK, arguments) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [way["center"] for way in told] == ["off", "means", "on"]
    for way in told:
        assert 0 <= way["measures"]["nDCG@10"]["value"] <= way["measures"]["R@10"]["value"] <= 1
        assert sum(way["documents"].values()) == 45
        assert way["aspects"]["text queries"]["queries"] + way["aspects"]["image queries"]["queries"] == way["queries"]
        share = sum(way["shares"]["all"][kind] * count for kind, count in way["documents"].items()) / 45
        assert share == pytest.approx(1, abs=2e-3)
        assert way["shares"]["all"]["worst"] >= 1
        stored = tmp_path / "results" / "mixed" / "fake-32" / f"sum-{way['center']}.json"
        assert json.loads(stored.read_text()) == way


def test_shares_are_of_the_found_over_the_stored():
    kinds = {"a": Modality.TEXT, "b": Modality.TEXT, "c": Modality.IMAGE, "d": Modality.IMAGE}
    shares = mixed.shares_of([Ranking(("a", "b"), (1.0, 0.5)), Ranking(("a", "c"), (1.0, 0.5))], kinds)
    assert shares == {"text": 1.5, "image": 0.5}
    assert mixed.worst_share(shares) == 2
    assert mixed.worst_share({"text": 2.0, "image": 0.0}) == 1000


def test_one_way_gives_one_document(capsys, tmp_path):
    where = ["--data", str(tmp_path), "--model", "fake:16"]
    arguments = [*where, "--limit", "20", "--center", "on", "--json", str(tmp_path / "out.json")]
    assert run.main(mixed.BENCHMARK, arguments) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    told = json.loads(line)
    assert (tmp_path / "out.json").read_text() == line + "\n"
    assert (told["benchmark"], told["center"], told["model"]) == ("mixed", "on", "fake:16")
    assert run.main(mixed.BENCHMARK, [*where, "--limit", "0"]) == 2
    assert "--limit is 0" in capsys.readouterr().err
