"""A query with a reference and a sentence does not find its own reference."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from indexer import Collection, Document
from retrieval import Query, Retriever, documents

BACKENDS = ["sqlite", "postgresql"]


def encoded(shade):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=BACKENDS)
def shop(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres")
    for name, shade in (("one.png", 1), ("copy of one.png", 1), ("two.png", 2)):
        (folder / name).write_bytes(encoded(shade))
    with Collection.open(folder / "shop", "fake:16", database=url) as opened:
        opened.add(
            [Document(path.name, image=path) for path in sorted(folder.glob("*.png"))]
            + [Document("kept", image=encoded(1)), Document("named", text="a", image=folder / "one.png")]
            + [Document("pil", image=Image.new("RGB", (8, 8), (3, 0, 0))), Document("text", text="red")]
        )
        opened.add([Document("gone", image=folder / "one.png")])
        opened.delete(["gone"])
        yield opened


def ids(results):
    return {hit.id for hit in results}


COPIES = {"one.png", "copy of one.png", "kept", "named"}
OTHERS = {"two.png", "pil", "text"}


def reference_of(shop, kind):
    file = shop.path.parent / "one.png"
    if kind == "pil":
        with Image.open(file) as opened:
            opened.load()
            return opened
    return {"path": file, "text path": str(file), "bytes": file.read_bytes()}[kind]


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "pil"])
@pytest.mark.parametrize(
    "more", [{"text": "red"}, {"not_texts": ("blue",)}, {"text": "red", "not_images": (encoded(9),)}]
)
def test_with_a_sentence_the_reference_and_its_copies_are_left_out_and_told(shop, kind, more):
    asked, query = Retriever(shop, "sum"), Query(image=reference_of(shop, kind), **more)
    results = asked.search(query, k=10)
    assert ids(results) == OTHERS
    assert [note for note in results.notes if "byte for byte" in note] == [
        "Left out 'copy of one.png', 'kept', 'named' and 1 more: the image is the reference itself, byte for byte. "
        "`keep_reference=True` keeps it."
    ]
    kept = asked.search(query, k=10, keep_reference=True)
    assert ids(kept) == COPIES | OTHERS
    assert not any("byte for byte" in note for note in kept.notes)


def test_an_image_alone_may_be_asked_for_itself(shop):
    results = Retriever(shop, "image").search(Query(image=reference_of(shop, "path")), k=10)
    assert ids(results) == COPIES | OTHERS
    assert results.notes == Retriever(shop, "image").search(Query(image=encoded(77)), k=1).notes


def test_an_image_that_was_stored_from_memory_is_known_again(shop):
    query = Query(text="red", image=Image.new("RGB", (8, 8), (3, 0, 0)))
    assert ids(Retriever(shop, "sum").search(query)) == (COPIES | OTHERS) - {"pil"}


def test_a_stored_reference_takes_its_copies_along_where_there_is_a_sentence(shop):
    asked = Retriever(shop, "sum")
    assert ids(asked.search(Query(text="red", like="one.png"))) == OTHERS
    assert ids(asked.search(Query(like="one.png"))) == (COPIES | OTHERS) - {"one.png"}
    assert ids(asked.search(Query(text="red", like="text"))) == (COPIES | OTHERS) - {"text"}
    assert ids(asked.search(Query(text="red", like="one.png"), keep_reference=True)) == COPIES | OTHERS


def test_each_query_of_a_batch_leaves_out_its_own(shop):
    asked = Retriever(shop, "sum")
    queries = [Query(text="red", image=encoded(shade)) for shade in (1, 2, 200)]
    found = [ids(each) for each in asked.search_batch(queries, k=10)]
    assert found == [OTHERS, (COPIES | OTHERS) - {"two.png"}, COPIES | OTHERS]


def test_a_large_image_in_memory_is_not_encoded_to_be_compared(shop, monkeypatch):
    monkeypatch.setattr(documents, "MOST_PIXELS", 63)
    query = Query(text="red", image=Image.new("RGB", (8, 8), (3, 0, 0)))
    assert ids(Retriever(shop, "sum").search(query)) == COPIES | OTHERS


def test_a_large_image_that_came_from_a_file_is_known_by_its_file(shop, monkeypatch):
    monkeypatch.setattr(documents, "MOST_PIXELS", 63)
    query = Query(text="red", image=reference_of(shop, "pil"))
    assert ids(Retriever(shop, "sum").search(query)) == OTHERS


def test_an_image_whose_file_is_gone_is_known_by_what_it_shows(shop):
    image = Image.new("RGB", (8, 8), (3, 0, 0))
    image.filename = str(shop.path.parent / "never there.png")
    assert ids(Retriever(shop, "sum").search(Query(text="red", image=image))) == (COPIES | OTHERS) - {"pil"}


def test_three_that_were_left_out_are_all_that_a_note_names(shop):
    results = Retriever(shop, "sum").search(Query(text="red", like="one.png"))
    [note] = [note for note in results.notes if "byte for byte" in note]
    assert note.startswith("Left out 'copy of one.png', 'kept', 'named': the image is the reference itself")


def test_a_page_of_several_images_is_no_copy_of_its_first(tmp_path):
    one, two = encoded(1), encoded(2)
    with Collection.open(tmp_path / "pages", "fake:16") as shop:
        shop.add([Document("page", images=[one, two]), Document("one", image=one), Document("text", text="red")])
        asked = Retriever(shop, "sum")
        assert ids(asked.search(Query(text="red", like="page"))) == {"one", "text"}
        assert ids(asked.search(Query(text="red", like="one"))) == {"page", "text"}
        assert ids(asked.search(Query(text="red", image=one))) == {"page", "text"}
