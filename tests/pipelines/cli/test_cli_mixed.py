"""A collection of texts and images on the command line: `--modality`, `--center`, `diagnose gap`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from indexer import Collection
from indexer.errors import CallError
from indexer.metadata.publish import NewDocument
from indexer.types import Modality
from indexer.vectors.unit import unit_rows
from pipelines.diagnostics.gap import measure_gap, probe_accuracy

KINDS = (Modality.TEXT, Modality.IMAGE)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Sixty things, each as a text and as a picture; the pictures lie in a cone of their own."""
    rng = np.random.default_rng(4)
    things = unit_rows(rng.standard_normal((60, 64)))
    cones = 1.2 * unit_rows(rng.standard_normal((2, 64)))
    folder = tmp_path_factory.mktemp("mixture") / "shop"
    with Collection.open(folder, "fake:64") as shop, shop.writer() as writer:
        for kind, cone in zip(KINDS, cones, strict=True):
            documents = [
                NewDocument(f"{kind.value}-{n}", f"thing {n}", None, None, None, kind, {"n": n}) for n in range(60)
            ]
            writer.commit(documents, unit_rows(things + cone + 0.05 * rng.standard_normal((60, 64))))
    return folder


def asked(run, mixture, *options):
    result = run("search", mixture, "--like", "text-7", "--method", "image", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_picture_of_a_text_comes_first_without_the_gap_and_not_with_it(run, mixture):
    told = asked(run, mixture)
    assert told["hits"][0]["id"] == "image-7"
    assert told["hits"][0]["score"] > 0.8
    assert ["mixes modalities" in note for note in told["notes"]] == [True]
    assert asked(run, mixture, "--center", "on") | {"took_ms": 0} == told | {"took_ms": 0}
    assert asked(run, mixture, "--center", "means")["hits"][0]["id"] == "image-7"
    plain = asked(run, mixture, "--center", "off")
    assert plain["notes"] == []
    assert all(hit["id"].startswith("text-") for hit in plain["hits"])


def test_a_modality_is_a_filter(run, mixture):
    for centre in ("auto", "off"):
        for kind in KINDS:
            told = asked(run, mixture, "--modality", kind.value, "--center", centre, "--where", '{"n": {"$lt": 30}}')
            assert len(told["hits"]) == 10
            assert all(hit["id"].startswith(kind.value) and hit["fields"]["n"] < 30 for hit in told["hits"])
    both = [option for kind in KINDS for option in ("--modality", kind.value)]
    assert asked(run, mixture, *both)["hits"] == asked(run, mixture)["hits"]
    assert asked(run, mixture, "--modality", "image+text")["hits"] == []


@pytest.mark.parametrize(("option", "known"), [("--modality", "text, image, image+text"), ("--center", "auto, on")])
def test_a_wrong_name_is_answered_with_the_right_ones(call, mixture, option, known):
    code, _, told = call("search", mixture, "x", option, "video")
    assert code == 2
    assert f"Known: {known}" in told


def test_the_gap_is_measured_before_and_after(run, mixture, tmp_path):
    result = run("diagnose", "gap", mixture, "--json", "-k", 5, "--plot", tmp_path / "gap.png")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["documents"], told["k"], told["auto"]) == ({"text": 60, "image": 60}, 5, True)
    assert told["before"]["distance"]["text / image"] > 0.5 > 0.2 > told["after"]["distance"]["text / image"]
    assert told["before"]["separability"]["text / image"] > 0.95 > 0.8 > told["after"]["separability"]["text / image"]
    for asking, other in (("text", "image"), ("image", "text")):
        assert told["before"]["share"][asking][other] < 0.1
        assert 0.67 < told["after"]["share"][asking][other] < 1.5
        assert sum(told["after"]["share"][asking].values()) == pytest.approx(2)
    with Image.open(tmp_path / "gap.png") as picture:
        assert min(picture.size) > 500
    shown = run("diagnose", "gap", mixture).stdout
    assert "distance of centroids, text / image" in shown
    assert "corrects the modality gap" in shown


def test_without_two_modalities_there_is_no_gap(call, shop, tmp_path):
    with Collection.open(tmp_path / "words", "fake:64") as words:
        with pytest.raises(CallError, match="the collection holds nothing"):
            measure_gap(words.snapshot())
    code, _, told = call("diagnose", "gap", shop)
    assert code == 2
    assert "between two modalities of 10 documents or more" in told


def test_the_probe_is_chance_where_there_is_nothing_to_tell():
    rng = np.random.default_rng(0)
    one, two = (rng.standard_normal((600, 8)).astype(np.float32) for _ in range(2))
    assert 0.4 < probe_accuracy(one, two) < 0.6
    assert probe_accuracy(one[:100] + 3, two) > 0.95
