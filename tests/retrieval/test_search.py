"""The retriever over a collection whose vectors can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from fake_collection import FakeSnapshot, FakeSource, stored
from PIL import Image

from indexer import Collection, Document
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, FilterError, QueryError, SnapshotGoneError, UnknownNameError
from indexer.types import Item, Modality
from retrieval import Method, Query, Retriever, Weights, ranking
from retrieval.methods import load_weights
from retrieval.retriever import STAGES
from retrieval.scoring import order

PLENTY = 100
OTHERS = (Method.INVERSION, Method.CIG, Method.CAPTION, Method.JOINT)
WITHOUT_WORDS = [method for method in Method if method not in OTHERS]
"""The methods that any model will do for; the others have tests of their own."""
COMPOSED = Query(text="red", like="cat", not_texts=("blue",))


def ids(results):
    return [hit.id for hit in results]


def test_text_finds_by_cosine(collection, embedder):
    results = Retriever(collection, "text").search(Query(text="red cat"), k=3)
    query, documents = embedder.encode_query([Item(text="red cat")])[0], collection.pinned._vectors
    assert ids(results)[0] == "red-cat"
    np.testing.assert_allclose([hit.score for hit in results], sorted(documents @ query)[::-1][:3], atol=1e-6)
    assert [hit.rank for hit in results] == [1, 2, 3]


def test_a_composed_query_needs_both_parts(collection):
    assert ids(Retriever(collection).search(Query(text="red", like="cat"), k=1)) == ["red-cat"]
    assert ids(Retriever(collection).search(Query(text="night", like="dog"), k=1)) == ["dog-at-night"]


@pytest.mark.parametrize("method", WITHOUT_WORDS)
def test_a_batch_is_its_queries_one_by_one(collection, method):
    queries = [
        Query(text="red", like="cat"),
        COMPOSED,
        Query(text="night", like="blue"),
        Query(text="red", like="cat"),
    ]
    retriever = Retriever(collection, method)
    for batched, query in zip(retriever.search_batch(queries, k=4), queries, strict=True):
        single = retriever.search(query, k=4)
        assert ids(batched) == ids(single)
        np.testing.assert_allclose([h.score for h in batched], [h.score for h in single], atol=1e-6)
        assert batched.notes == single.notes


def test_a_batch_embeds_its_texts_in_one_call_and_its_pictures_in_another(collection, embedder, monkeypatch):
    calls = []
    original = embedder.try_encode
    monkeypatch.setattr(
        embedder,
        "try_encode",
        lambda items, *rest: calls.append([i.modality for i in items]) or original(items, *rest),
    )
    one, two = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    queries = [
        Query(text="red", image=one),
        Query(text="red", image=two, not_texts="dog"),
        Query(text="blue", like="cat"),
    ]
    Retriever(collection).search_batch(queries)
    assert calls == [[Modality.TEXT] * 3, [Modality.IMAGE] * 2]


def test_stored_references_alone_need_no_model(collection):
    Retriever(collection, "image").search(Query(like="cat"))
    assert collection.loaded == 0


def test_sum_scores_are_the_weighted_branch_scores(collection):
    weights = Weights(image=0.3, text=0.9, negative=0.2)
    results = Retriever(collection, "sum", weights).search(COMPOSED, k=PLENTY)
    parts = [
        0.3 * hit.branches["image"] + 0.9 * hit.branches["text"] - 0.2 * hit.branches["not_text_1"] for hit in results
    ]
    ratio = np.array(parts) / [hit.score for hit in results]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert parts == sorted(parts, reverse=True)


@pytest.mark.parametrize("method", ["text", "sum", "slerp", "shift", "product"])
def test_a_negative_pushes_away(collection, method):
    retriever = Retriever(collection, method)
    plain = retriever.search(Query(text="red", like="cat"), k=PLENTY)
    pushed = retriever.search(Query(text="red", like="cat", not_texts="dog"), k=PLENTY)
    dogs = ("dog", "red-dog", "dog-at-night")
    assert sum(map(ids(pushed).index, dogs)) > sum(map(ids(plain).index, dogs))
    assert pushed.hits[0].id == plain.hits[0].id == "red-cat" or method == "text"


@pytest.mark.parametrize("method", ["image", "sum", "product"])
def test_like_leaves_itself_out(collection, method):
    retriever = Retriever(collection, method)
    for k in (1, 9, PLENTY):
        found = ids(retriever.search(Query(text="red", like="cat"), k=k))
        assert "cat" not in found
        assert len(found) == min(k, 9)
    batch = retriever.search_batch([Query(text="red", like="cat"), Query(text="red", like="dog")], k=PLENTY)
    assert ["cat" in ids(results) for results in batch] == [False, True]


@pytest.mark.parametrize("method", ["sum", "product"])
def test_where_and_exclude_reach_the_index(collection, method):
    retriever = Retriever(collection, method)
    found = retriever.search(Query(text="red", like="cat"), k=PLENTY, where={"length": 7}, exclude=["red-dog"])
    assert ids(found) == ["red-cat", "day"]
    assert collection.pinned.calls[-1] == ({"length": 7}, ("red-dog",))


def test_product_on_all_rows_is_product_on_candidates(collection, monkeypatch):
    retriever = Retriever(collection, "product")
    everything = retriever.search(COMPOSED, k=4)
    monkeypatch.setattr(ranking, "SCAN_ROWS", 0)
    candidates = retriever.search(COMPOSED, k=4)
    assert everything.hits == candidates.hits


def test_products_may_miss_only_what_no_probe_finds(collection, monkeypatch):
    monkeypatch.setattr(ranking, "SCAN_ROWS", 0)
    monkeypatch.setattr(ranking, "DEPTH", 1)
    # Ten times k candidates of each probe: here, all.
    assert len(Retriever(collection, "product").search(COMPOSED, k=1)) == 1
    assert len(Retriever(collection, "product").search(COMPOSED, k=PLENTY)) == 9


def twins(embedder, names):
    """Documents of one and the same vector, and one that differs."""
    documents = [stored(name, "cat") for name in names] + [stored("other", "dog")]
    vectors = embedder.encode_document([Item(text=document.text) for document in documents])
    return FakeSource(FakeSnapshot(documents, vectors), embedder)


@pytest.mark.parametrize("method", ["text", "sum", "product"])
@pytest.mark.parametrize("k", [1, 2, 5, 70])
def test_ties_are_broken_by_document_id_even_at_the_last_place(embedder, method, k):
    names = [f"{number:02}" for number in range(60)]
    source = twins(embedder, names[::-1])
    query = Query(text="cat", like="other") if method == "product" else Query(text="cat")
    assert ids(Retriever(source, method).search(query, k=k))[:60] == names[: min(k, 60)]


def test_ties_reach_behind_hidden_documents(embedder):
    source = twins(embedder, ["c", "b", "a"])
    retriever = Retriever(source, "image")
    assert ids(retriever.search(Query(like="c"), k=1)) == ["a"]
    [ranked] = retriever.rank(retriever.encode([Query(like="c")]), 1, exclude=[["a"]])
    assert ranked.ids == ("b",)


def test_k_come_back_however_many_are_hidden(collection):
    retriever = Retriever(collection, "text")
    encoded = retriever.encode([Query(text="red cat"), Query(text="red cat")])
    [whole, _] = retriever.rank(encoded, 10)
    [rest, same] = retriever.rank(encoded, 3, exclude=[whole.ids[:6], ()])
    assert rest.ids == whole.ids[6:9]
    assert same.ids == whole.ids[:3]


def test_how_a_scan_rounds_does_not_show(embedder, monkeypatch):
    names = [f"{number:02}" for number in range(30)]
    source = twins(embedder, names)
    exact = source.pinned.scan

    def rounded(vectors, *rest):
        """Later rows come out a little larger, as BLAS may have it."""
        ids, scores = exact(vectors, *rest)
        return ids, scores + np.linspace(0, 1e-6, len(ids), dtype=np.float32)

    monkeypatch.setattr(source.pinned, "scan", rounded)
    results = Retriever(source, "product").search(Query(text="cat", like="other"), k=3)
    assert ids(results) == ["00", "01", "02"]
    assert len({hit.score for hit in results}) == 1


@pytest.mark.parametrize("k", [0, -1, True, 1.0, "3", None])
def test_k_is_a_positive_whole_number(collection, k):
    with pytest.raises(QueryError, match="at least 1"):
        Retriever(collection).search(Query(text="cat"), k=k)


@pytest.mark.parametrize("method", ["sum", "product"])
def test_more_than_there_are_gives_all(collection, method):
    query = Query(text="red", image=Image.new("RGB", (4, 4)))
    assert len(Retriever(collection, method).search(query, k=PLENTY)) == 10


@pytest.mark.parametrize("method", ["text", "product"])
def test_an_empty_collection_gives_no_hits_and_a_note(empty, method):
    results = Retriever(empty, method).search(Query(text="cat"))
    assert results.hits == ()
    assert results.notes == ("The collection is empty.",)
    assert results.took_ms.keys() == set(STAGES)
    assert Retriever(empty, method).search_batch([]) == []


def test_no_query_gives_no_results(collection):
    assert Retriever(collection).search_batch([]) == []


def test_a_modality_that_the_model_lacks_is_refused(collection):
    class TextOnly(type(collection.model)):
        modalities = frozenset({Modality.TEXT})

    collection.model = TextOnly(64)
    with pytest.raises(CallError, match="does not embed 'image' items; it takes text"):
        Retriever(collection).search(Query(text="cat", image=Image.new("RGB", (4, 4))))


def test_a_picture_that_cannot_be_read_is_a_query_error_with_the_reason(collection, tmp_path):
    with pytest.raises(QueryError, match="The query's image cannot be used: .*does not exist"):
        Retriever(collection).search(Query(image=tmp_path / "none.png"))
    queries = [Query(text="cat"), Query(text="cat", not_images=b"no picture")]
    with pytest.raises(QueryError, match="The not_image_1 of query 1 cannot be used"):
        Retriever(collection).search_batch(queries)


def test_a_missing_file_and_a_bad_filter_are_told_before_the_model_is_loaded(tmp_path):
    class Unloaded(Collection):
        @property
        def embedder(self):
            raise AssertionError("the model was loaded")

    with Collection.open(tmp_path / "c", FakeEmbedder(8)) as made:
        made.add([Document("a", text="a cat")])
    with Unloaded.open(tmp_path / "c") as shop:
        with pytest.raises(QueryError, match=r"none\.png does not exist\. Give another image"):
            Retriever(shop).search(Query(text="cat", image=tmp_path / "none.png"))
        with pytest.raises(FilterError, match=r"\$near"):
            Retriever(shop).search(Query(text="cat"), where={"price": {"$near": 5}})


def test_an_unknown_document_is_named(collection):
    with pytest.raises(CallError, match="nobody"):
        Retriever(collection).search(Query(like="nobody"))


def test_an_unknown_method_and_a_weight_that_is_not_read_are_refused(collection):
    with pytest.raises(UnknownNameError, match="method 'mean' is not known"):
        Retriever(collection, "mean")
    with pytest.raises(QueryError, match="sum does not read the weight alpha"):
        Retriever(collection, "sum", Weights(alpha=1.0))
    with pytest.raises(QueryError, match="sum does not read the weight penalty"):
        Retriever(collection).search(Query(text="cat", weights=Weights(penalty=0.0)))


def test_the_querys_weights_go_over_the_retrievers_and_those_over_the_tuned(collection):
    query = Query(text="red", like="cat")
    given = Retriever(collection, "sum", Weights(text=0.1))
    assert (
        given.search(query).hits
        == Retriever(collection, "sum").search(Query(text="red", like="cat", weights=Weights(text=0.1))).hits
    )
    once = Query(text="red", like="cat", weights=Weights(text=0.9))
    assert given.search(once).hits == Retriever(collection, "sum", Weights(text=0.9)).search(query).hits
    assert given.search(once).hits != given.search(query).hits
    tuned = load_weights("fake:64", "sum")
    assert Retriever(collection, "sum", tuned.weights).search(query).hits == Retriever(collection).search(query).hits
    assert given.weights().source == f"given: {{'text': 0.1}}; others: {tuned.source}"
    assert given.weights().weights == Weights(text=0.1).over(tuned.weights)
    assert Retriever(collection).weights() == tuned


def test_a_snapshot_that_is_gone_is_replaced_once(collection):
    collection.gone = 1
    assert Retriever(collection).search(Query(text="cat")).hits
    assert collection.opened == 2
    collection.opened, collection.gone = 0, 2
    with pytest.raises(SnapshotGoneError):
        Retriever(collection).search(Query(text="cat"))


def test_results_say_how_they_came_about(collection):
    results = Retriever(collection, "product").search(COMPOSED, k=2)
    assert (results.method, results.model, results.generation) == ("product", "fake:64", 7)
    assert "soft AND" in results.scale
    assert tuple(results.took_ms) == STAGES
    assert all(milliseconds > 0 for milliseconds in results.took_ms.values())
    assert Retriever(collection, "text").search(COMPOSED).notes == ("The method text leaves the image out.",)
    assert results.hits[0].branches.keys() == {"text", "image", "not_text_1"}
    assert results.hits[0].uri == f"memory:{results.hits[0].id}"


@pytest.mark.parametrize("method", WITHOUT_WORDS)
def test_rank_gives_the_ids_of_search(collection, method):
    retriever = Retriever(collection, method)
    queries = [COMPOSED, Query(text="night", like="dog")]
    ranked = retriever.rank(retriever.encode(queries), 5)
    for ranking_, results in zip(ranked, retriever.search_batch(queries, k=5), strict=True):
        assert list(ranking_.ids) == ids(results)
        assert list(ranking_.scores) == [hit.score for hit in results]


@pytest.mark.parametrize("method", ["sum", "product"])
def test_rank_among_orders_what_it_is_given(collection, method):
    retriever = Retriever(collection, method)
    encoded = retriever.encode([COMPOSED])
    some = ["blue", "red-cat", "cat", "day"]
    [among] = retriever.rank_among(encoded, [some])
    [every] = retriever.rank_among(encoded, [list(collection.pinned._place)])
    assert sorted(among.ids) == sorted(some)
    assert list(among.ids) == [name for name in every.ids if name in some]
    assert order(np.array(among.scores, np.float32), among.ids) == [0, 1, 2, 3]


def test_rank_in_an_empty_collection_is_empty(empty):
    retriever = Retriever(empty, "text")
    assert retriever.rank(retriever.encode([Query(text="cat")]), 5)[0].ids == ()
