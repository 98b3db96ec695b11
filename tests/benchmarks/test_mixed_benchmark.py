"""The mixed benchmark: what is stored and asked, and how shares are counted."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from benchmarks.tasks import mixed
from indexer.bundled import CORPUS
from indexer.embed import load_embedder
from indexer.types import Modality
from retrieval.hydrate import Ranking


@pytest.fixture(scope="module")
def rows():
    return pq.read_table(CORPUS).to_pylist()


def test_each_concept_is_one_document_and_a_third_of_each_kind(rows):
    pool = mixed.build(rows)
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
    assert mixed.build(rows[::-1]).kinds == pool.kinds


def test_nothing_is_asked_for_by_its_name_or_by_its_own_drawing(rows):
    pool = mixed.build(rows)
    names = {row["concept"]: row["text"] for row in rows}
    drawings = {document.id: document.image for document in pool.documents}
    heldout = {row["concept"]: row["split"] != "train" for row in rows}
    own = {}
    for row in rows:
        own.setdefault(row["concept"], set()).add(row["image"])
    kinds = Counter(each.kind for each in pool.asked)
    assert kinds["text"] > 3700
    assert kinds["image"] > 3700
    for each in pool.asked:
        assert each.heldout == heldout[each.target]
        if each.kind == "text":
            assert each.query.text != names[each.target]
        else:
            assert each.query.image != drawings[each.target]
            assert each.query.image in own[each.target]


def test_the_three_ways_are_measured(rows):
    concepts = sorted({row["concept"] for row in rows})[:45]
    pool = mixed.build([row for row in rows if row["concept"] in concepts])
    told = mixed.measure(load_embedder("fake:32"), pool)
    assert list(told) == ["off", "means", "on"]
    for way in told.values():
        assert way["all"]["queries"] == len(pool.asked)
        assert 0 <= way["all"]["nDCG@10"]["value"] <= way["all"]["R@10"] <= 1
        share = sum(
            way["all"]["share"][kind.value] * list(pool.kinds.values()).count(kind) / len(pool.kinds)
            for kind in mixed.KINDS
        )
        assert share == pytest.approx(1, abs=2e-3)
    assert mixed.markdown(told).count("\n") == 4


def test_shares_are_of_the_found_over_the_stored():
    kinds = {"a": Modality.TEXT, "b": Modality.TEXT, "c": Modality.IMAGE, "d": Modality.IMAGE}
    shares = mixed._shares([Ranking(("a", "b"), (1.0, 0.5)), Ranking(("a", "c"), (1.0, 0.5))], kinds)
    assert shares == {"text": 1.5, "image": 0.5}
    assert mixed.worst_share(shares) == 2
    assert mixed.worst_share({"text": 2.0, "image": 0.0}) == 1000


def test_the_last_line_is_one_json_document(capsys, tmp_path):
    assert mixed.main(["--model", "fake:16", "--limit", "20", "--json", str(tmp_path / "out.json")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    told = json.loads(line)
    assert (tmp_path / "out.json").read_text() == line + "\n"
    assert sum(told["documents"].values()) == 20
    assert told["measures"]["on"]["all"]["worst_share"] >= 1
    assert mixed.main(["--limit", "0"]) == 2
    assert "--limit is 0" in capsys.readouterr().err
