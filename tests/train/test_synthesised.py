"""Synthesised records in a batch of `train unified`: read, joined, answered by what is right, refused when broken."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_train_unified import RECIPE, captions, sampler  # noqa: F401
from tiny_corpus import corpus, draw

from indexer.errors import CallError
from indexer.types import Modality
from pipelines.train.common.tasks import NONE
from pipelines.train.unified import train as program
from pipelines.train.unified.synthesised import Finds, SynthesisedRecord, SynthesisedRecords, read_records
from pipelines.train.unified.train import _Trainer, train_unified


def record(finds, picture, document, drawn=None):
    return SynthesisedRecord(
        f"{finds}-{picture}", finds, "what is this one for?", picture, drawn, document, f"{document}: a thing", {"seed": 0}
    )  # fmt: skip


RECORDS = [
    record(Finds.TEXT, "red-square", "red-circle"),
    record(Finds.FUSED, "green-square", "green-circle"),
    record(Finds.IMAGE, "blue-square", "blue-circle"),
    record(Finds.TEXT, "red-square", "blue-circle", "drawn/one.png"),
    record(Finds.TEXT, "red-square", "blue-circle", "drawn/lost.png"),
    record(Finds.TEXT, "yellow-square", "yellow-circle"),
]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "drawn").mkdir()
    draw("blue", "circle").save(tmp_path / "drawn" / "one.png")
    made = tmp_path / "records.jsonl"
    made.write_text("".join(json.dumps(each.to_json()) + "\n" for each in RECORDS))
    return made


def pairs_of(file, share=0.5):
    ids = {each.document.id: row for row, each in enumerate(corpus()) if each.document.fields["split"] == "train"}
    pictures = [np.asarray(each.document.image) for each in corpus()]
    found = SynthesisedRecords.read(file).pairs(ids, pictures, lambda image: np.asarray(image), share)
    return found, pictures, ids


def test_records_survive_the_file(file):
    assert read_records(file) == RECORDS


def test_what_may_not_be_trained_on_or_cannot_be_read_is_left_out(file):
    found, pictures, _ = pairs_of(file)
    assert len(found) == 4  # not the lost drawing, nor what is for validation
    assert len(pictures) == len(corpus()) + 1
    assert (pictures[-1] == np.asarray(draw("blue", "circle"))).all()


def test_a_query_is_a_picture_and_a_sentence_and_finds_what_its_record_says(file):
    found, pictures, ids = pairs_of(file)
    queries, documents = found.draw(4, np.random.default_rng(0))
    assert {query.modality for query in queries} == {Modality.FUSED}
    assert {query.image for query in queries} == {ids["red-square"], ids["green-square"], ids["blue-square"], 8}
    by_row = {(document.row, document.modality): document for document in documents}
    text = by_row[ids["red-circle"], Modality.TEXT]
    assert (text.text, text.image) == ("red-circle: a thing", NONE)
    fused = by_row[ids["green-circle"], Modality.FUSED]
    assert (fused.text, fused.image) == ("green-circle: a thing", ids["green-circle"])
    assert by_row[ids["blue-circle"], Modality.IMAGE].text is None


def test_a_batch_joined_with_others_knows_all_right_answers(sampler, file):  # noqa: F811
    found, _, _ = pairs_of(file)
    rng = np.random.default_rng(0)
    mined = np.tile(np.array([0, 1]), (len(corpus()), 1))
    pairs = sampler.draw(10, rng, mined, 1)
    queries, documents = found.draw(4, rng)
    both = sampler.joined(pairs, queries, documents)
    assert list(both.queries) == [*pairs.queries, *queries]
    assert list(both.documents) == [*pairs.documents[:10], *documents, *pairs.documents[10:]]
    assert both.right.shape == (14, len(pairs.documents) + 4)
    assert both.right[:14, :14].diagonal().all()
    assert (both.right[:10, :10] == pairs.right[:, :10]).all()
    assert (both.right[:10, 14:] == pairs.right[:, 10:]).all()
    names = captions().names
    for place, query in enumerate(both.queries[10:], 10):
        for other, document in enumerate(both.documents):
            if names[document.row] == names[query.row] and document.caption == NONE:
                assert both.right[place, other]


def test_they_take_their_share_of_a_batch(file, tmp_path, monkeypatch):
    drawn = []
    real = program.TaskSampler.joined
    monkeypatch.setattr(
        program.TaskSampler,
        "joined",
        lambda self, pairs, *more: drawn.append((len(pairs.queries), len(more[0]))) or real(self, pairs, *more),
    )
    recipe = replace(RECIPE, synthesised=str(file), synthesised_share=0.3, steps=1, hard_steps=0)
    measured = train_unified(corpus(), recipe, tmp_path / "run")
    assert drawn == [(10, 4)]
    assert "train_fused_r1" in measured


def test_without_records_a_batch_is_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(program.TaskSampler, "joined", lambda *_: pytest.fail("nothing to join"))
    train_unified(corpus(), replace(RECIPE, steps=1, hard_steps=0), tmp_path / "run")


def test_the_tokenizer_learns_their_words(file, tmp_path, monkeypatch):
    read = []
    real = program.start_model
    monkeypatch.setattr(
        program, "start_model", lambda recipe, folder, texts: read.extend(texts) or real(recipe, folder, texts)
    )
    from pipelines.train.common.run import RunFolder

    recipe = replace(RECIPE, synthesised=str(file))
    _Trainer(corpus(), recipe, RunFolder.start(tmp_path / "run", recipe))
    assert "what is this one for?" in read
    assert "blue-circle: a thing" in read


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"id": "a"}',
        json.dumps({**RECORDS[0].to_json(), "finds": "sound"}),
        json.dumps({**RECORDS[0].to_json(), "text": 3}),
        json.dumps({**RECORDS[0].to_json(), "more": 3}),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    made = tmp_path / "records.jsonl"
    made.write_text(json.dumps(RECORDS[0].to_json()) + "\n" + line + "\n")
    with pytest.raises(CallError, match=r"Line 2 of .*not a record"):
        read_records(made)


def test_records_of_another_corpus_are_refused(tmp_path):
    made = tmp_path / "records.jsonl"
    made.write_text(json.dumps(record(Finds.TEXT, "a", "b").to_json()) + "\n")
    with pytest.raises(CallError, match="None of the 1"):
        pairs_of(made)
    with pytest.raises(CallError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")


def test_a_run_from_before_there_were_records_goes_on(tmp_path):
    from pipelines.train.common.run import RunFolder

    RunFolder.start(tmp_path, RECIPE)
    old = json.loads((tmp_path / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps({k: v for k, v in old.items() if not k.startswith("synth")}))
    RunFolder.start(tmp_path, RECIPE)
