"""`joint`: one item of text and image, read by a multimodal model; and instructions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_collection import FakeSnapshot, FakeSource, stored
from PIL import Image
from tiny_mllm import tiny_mllm
from typer.testing import CliRunner

from indexer import Collection, Document
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, QueryError
from indexer.types import Item, Modality, Role
from indexer.vectors.unit import unit_rows
from pipelines.cli.app import app
from retrieval import Query, Retriever, Weights


class Reader(FakeEmbedder):
    """A fake that reads both at once, with an instruction: a fused vector is not in the plane of its parts."""

    fuses_natively = True
    reads_instructions = True

    def forward(self, prepared, role, instruction=None):
        rows = super().forward(prepared, role)
        rows = np.stack(
            [np.roll(row, each.modality is Modality.FUSED) for row, each in zip(rows, prepared, strict=True)]
        )
        if instruction is None or role is Role.DOCUMENT:
            return rows
        return unit_rows(rows + super().forward([self.preparer()(Item(instruction))], role))


def picture(colour):
    return Image.new("RGB", (8, 8), colour)


@pytest.fixture
def reader():
    return Reader(64)


@pytest.fixture
def source(reader, tmp_path):
    """Documents: two pictures in files, one text, and what picture and text are read as together."""
    for colour in ("red", "blue"):
        picture(colour).save(tmp_path / f"{colour}.png")
    items = {
        "red": Item(image=picture("red")), "blue": Item(image=picture("blue")), "words": Item("dark"),
        "red dark": Item("dark", picture("red")), "blue dark": Item("dark", picture("blue")),
    }  # fmt: skip
    documents = [stored(name, name) for name in items]
    for place, colour in enumerate(("red", "blue")):
        documents[place] = replace(documents[place], image=tmp_path / f"{colour}.png")
    return FakeSource(FakeSnapshot(documents, reader.encode_document(list(items.values()))), reader)


def test_both_parts_are_read_as_one_item(source, reader, monkeypatch):
    calls = []
    real = reader.try_encode
    monkeypatch.setattr(reader, "try_encode", lambda items, *rest: calls.append(items) or real(items, *rest))
    results = Retriever(source, "joint").search(Query(text="dark", image=picture("blue")), k=5)
    assert [item.modality for items in calls for item in items] == [Modality.FUSED]
    assert results.method == "joint"
    assert results.hits[0].id == "blue dark"
    assert results.hits[0].score == pytest.approx(1, abs=1e-5)
    assert results.hits[0].branches == {"joint": pytest.approx(1, abs=1e-5)}
    assert results.scale == "cosine, from -1 to 1"


def test_of_a_stored_reference_the_picture_is_read_and_it_is_not_found_itself(source):
    results = Retriever(source, "joint").search(Query(text="dark", like="red"), k=5)
    given = Retriever(source, "joint").search(Query(text="dark", image=picture("red")), k=5)
    assert results.hits[0].id == "red dark"
    assert "red" not in [hit.id for hit in results]
    assert results.hits[0].score == pytest.approx(given.hits[0].score, abs=1e-6)


def test_a_stored_reference_without_a_picture_says_what_to_do(source):
    with pytest.raises(QueryError, match="'words' has no image, and the method joint reads.*method sum"):
        Retriever(source, "joint").search(Query(text="dark", like="words"))
    source.pinned._documents[0].image.unlink()
    with pytest.raises(QueryError, match="The query's joint cannot be used"):
        Retriever(source, "joint").search(Query(text="dark", like="red"))


def test_a_model_that_sums_parts_is_refused_with_the_remedy(collection):
    with pytest.raises(CallError, match=r"fake:64 does not read an image and a text together.*such as mllm:NAME"):
        Retriever(collection, "joint").search(Query(text="red", like="cat"))
    notes = Retriever(collection, "joint").search(Query(text="red"), k=1).notes
    assert notes == ("The query has no image, so the method joint searches by the text alone.",)


def test_negatives_are_taken_off(source, reader):
    query = Query(text="dark", image=picture("red"), not_images=(picture("blue"),), weights=Weights(negative=0.7))
    results = Retriever(source, "joint").search(query, k=1)
    fused, against = (
        reader.encode_query([Item("dark", picture("red"))]),
        reader.encode_query([Item(image=picture("blue"))]),
    )
    want = unit_rows(fused - 0.7 * against) @ reader.encode_document([Item("dark", picture("red"))])[0]
    assert results.hits[0].score == pytest.approx(float(want[0]), abs=1e-5)
    with pytest.raises(QueryError, match="does not read the weight text"):
        Retriever(source, "joint", Weights(text=1.0))


@pytest.mark.parametrize("method", ["text", "sum", "joint"])
def test_each_query_of_a_batch_is_embedded_with_its_own_instruction(source, method):
    shared = {"text": "dark", "image": picture("red")}
    queries = [Query(**shared), Query(**shared, instruction="blue"), Query(**shared, instruction="words")]
    retriever = Retriever(source, method)
    answers = retriever.search_batch(queries, k=5)
    for query, answer in zip(queries, answers, strict=True):
        single = retriever.search(query, k=5)
        assert [hit.id for hit in answer] == [hit.id for hit in single]
        np.testing.assert_allclose([hit.score for hit in answer], [hit.score for hit in single], atol=1e-6)
    scores = {tuple(sorted(round(hit.score, 4) for hit in answer)) for answer in answers}
    assert len(scores) == 3


def test_an_instruction_that_no_one_reads_is_refused(collection):
    with pytest.raises(CallError, match="fake:64 reads no instructions, but this query has one: 'find it'"):
        Retriever(collection, "sum").search(Query(text="red", like="cat", instruction="find it"))
    with pytest.raises(QueryError, match="`instruction` is empty"):
        Query(text="red", instruction=" ")


def test_documents_of_every_kind_are_searched_jointly_from_the_command_line(tmp_path):
    """A collection of a real model, opened again without being told of it."""
    model = f"mllm:{tiny_mllm(tmp_path / 'model')}"
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(3)]
    with Collection.open(tmp_path / "shop", model) as shop:
        added = shop.add([
            Document("picture", image=pictures[0]), Document("text", "a red square"),
            Document("page", "a blue circle", pictures[1]), Document("narrow", image=Image.new("RGB", (900, 3))),
        ])  # fmt: skip
        assert [(each.uri, each.reason) for each in added.rejected] == [("narrow", "aspect")]
        assert shop.info()["by_modality"] == {"image": 1, "text": 1, "image+text": 1}
        both = Retriever(shop, "joint").search(Query(text="a blue circle", image=pictures[1]), k=3, keep_reference=True)
        with shop.snapshot() as snapshot:
            page = snapshot.vectors(snapshot.vector_ids(["page"]))[0]
        # The same item as a query and as a document: apart by the instruction alone.
        assert {hit.id: hit.score for hit in both}["page"] == pytest.approx(
            float(shop.embedder.encode_query([Item("a blue circle", pictures[1])])[0] @ page), abs=1e-5
        )
    pictures[2].save(tmp_path / "reference.png")
    asked = [
        "search",
        tmp_path / "shop",
        "two stars",
        "--image",
        tmp_path / "reference.png",
        "--method",
        "joint",
        "--trust",
        "--json",
    ]
    answers = []
    for more in ([], ["--instruction", "find the picture that is changed like that"]):
        done = CliRunner().invoke(app, [str(each) for each in (*asked, *more)])
        assert done.exit_code == 0, done.output
        answers.append(json.loads(done.stdout))
    assert [answer["method"] for answer in answers] == ["joint", "joint"]
    assert {hit["id"] for hit in answers[0]["hits"]} == {"picture", "text", "page"}
    assert all(list(hit["branches"]) == ["joint"] for hit in answers[0]["hits"])
    assert [hit["score"] for hit in answers[0]["hits"]] != [hit["score"] for hit in answers[1]["hits"]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method", "joint"], "does not read an image and a text together"),
        (["--instruction", "x"], "reads no instructions"),
    ],
)
def test_what_a_collections_model_cannot_do_ends_with_2_and_the_remedy(tmp_path, options, told):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("one", "a star")])
    picture("red").save(tmp_path / "red.png")
    done = CliRunner().invoke(
        app, ["search", str(tmp_path / "shop"), "x", "--image", str(tmp_path / "red.png"), *options]
    )
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert "mllm:NAME" in done.stderr
    assert "Traceback" not in done.output
