"""Calls of the wrong type raise an error of ours that names the mistake and the remedy."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from indexer import Collection, Document, IndexSettings, Item, index_corpus
from indexer.embed import load_embedder
from indexer.errors import UnderdrawingError
from retrieval import CaptionRewriter, GenerateOptions, PseudoTargetProvider, Query, Retriever, Weights

URL = "https://example.org/cats/cat.jpg"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    with Collection.open(folder / "shop", model="fake:16") as opened:
        opened.add([Document("a", text="red", fields={"n": 1}), Document("b", text="blue")])
        yield opened


def ask(shop, method="text", **options):
    return Retriever(shop, method, **options)


ARRAY = np.zeros((2, 2))
VECTOR = np.ones((1, 16), np.float32)
WRONG = {
    # Collection.open
    "open a number": (lambda shop: Collection.open(5), "path is int 5"),
    "open None": (lambda shop: Collection.open(None), "path is None"),
    "open bytes": (lambda shop: Collection.open(b"shop"), "path is bytes"),
    "open nothing": (lambda shop: Collection.open(""), "path is empty"),
    "open NUL": (lambda shop: Collection.open("a\0b", model="fake:16"), "NUL"),
    "open a URL": (lambda shop: Collection.open("s3://bucket/shop", model="fake:16"), "s3://bucket/shop.*folder of this machine"),
    "open a collection": (lambda shop: Collection.open(shop), "path is Collection"),
    "model of a number": (lambda shop: Collection.open(shop.path, 5), "model is int 5"),
    "model of a class": (lambda shop: Collection.open(shop.path, Item), "model is type"),
    "model misspelt": (lambda shop: Collection.open(shop.path.parent / "new", "bundled:emoji-clp"), "Did you mean.*emoji-clip"),
    "family misspelt": (lambda shop: Collection.open(shop.path.parent / "new", "bundeld:emoji-clip"), "Did you mean 'bundled'"),
    "parts of a number": (lambda shop: Collection.open(shop.path, parts=5), "parts '5' is not known.*Known: auto"),
    "parts misspelt": (lambda shop: Collection.open(shop.path, parts="imgae"), "Did you mean 'image'"),
    "dtype misspelt": (lambda shop: Collection.open(shop.path, dtype="float23"), "Did you mean 'float32'"),
    "settings misspelt": (lambda shop: Collection.open(shop.path, index="hsnw"), "Did you mean 'hnsw'"),
    "settings of a number": (lambda shop: Collection.open(shop.path, index=5), "index kind '5' is not known"),
    "database of a number": (lambda shop: Collection.open(shop.path, database=5), "5 is not a database URL"),
    "database of half a URL": (lambda shop: Collection.open(shop.path, database="postgresql://[::1"), "not a database URL"),
    "database with a bad port": (lambda shop: Collection.open(shop.path, database="postgresql://host:port/x"), "not a database URL"),
    "device of a number": (lambda shop: Collection.open(shop.path.parent / "new", "fake:16", device=5), "no device 5"),
    # add, delete
    "add a text": (lambda shop: shop.add("text"), "add takes documents"),
    "add a number": (lambda shop: shop.add(5), "add takes documents"),
    "add None": (lambda shop: shop.add(None), "add takes documents"),
    "add mappings": (lambda shop: shop.add([{"id": "z", "text": "t"}]), r"documents\[0\] is .*Document\("),
    "add a bad id": (lambda shop: shop.add([Document(None, text="t")]), "id must be"),
    "add a bad text": (lambda shop: shop.add([Document("z", text=5)]), "text must be a text"),
    "add bad fields": (lambda shop: shop.add([Document("z", text="t", fields=5)]), "fields must be an object"),
    "add an image of a number": (lambda shop: shop.add([Document("z", image=5)]), "image"),
    "add an image by URL": (lambda shop: shop.add([Document("z", image=URL)]), URL),
    "delete a text": (lambda shop: shop.delete("a"), "delete takes a list"),
    "delete None": (lambda shop: shop.delete(None), "delete takes a list"),
    "delete a document": (lambda shop: shop.delete([Document("a")]), "document.id"),
    # snapshots
    "search lists": (lambda shop: shop.snapshot().search([[1.0] * 3], 1), "shape"),
    "search ragged lists": (lambda shop: shop.snapshot().search([[1.0], [1.0, 2.0]], 1), "vectors"),
    "search texts": (lambda shop: shop.snapshot().search(np.array([["a"] * 16]), 1), "vectors"),
    "search None": (lambda shop: shop.snapshot().search(None, 1), "vectors"),
    "search one row": (lambda shop: shop.snapshot().search(VECTOR[0], 1), "shape"),
    "search k of a text": (lambda shop: shop.snapshot().search(VECTOR, "1"), "k is str '1'"),
    "search k of a fraction": (lambda shop: shop.snapshot().search(VECTOR, 1.0), "k is float 1.0"),
    "search k of True": (lambda shop: shop.snapshot().search(VECTOR, True), "k is bool True"),
    "search k of 0": (lambda shop: shop.snapshot().search(VECTOR, 0), "k is 0"),
    "search k of very many": (lambda shop: shop.snapshot().search(VECTOR, 10**12), "k is 1000000000000"),
    "search exclude of a text": (lambda shop: shop.snapshot().search(VECTOR, 1, exclude="ab"), "exclude"),
    "search exclude of numbers": (lambda shop: shop.snapshot().search(VECTOR, 1, exclude=[5]), r"exclude\[0\] is int 5"),
    "search where of a text": (lambda shop: shop.snapshot().search(VECTOR, 1, where="n = 1"), "Write for example"),
    "search modalities of a text": (lambda shop: shop.snapshot().search(VECTOR, 1, modalities=["txet"]), "Did you mean 'text'"),
    "vectors of a text": (lambda shop: shop.snapshot().vector_ids("ab"), "document_ids is the one text 'ab'"),
    "vectors of numbers": (lambda shop: shop.snapshot().vector_ids([5]), r"document_ids\[0\] is int 5"),
    "vectors of what is not there": (lambda shop: shop.snapshot().vector_ids(["zzz"]), "'zzz' is not in the collection"),
    "get a list": (lambda shop: shop.get(["a"]), r"id is list \['a'\]"),
    # index_corpus
    "index a number": (lambda shop: index_corpus(5, shop), "path or a Corpus, not int"),
    "index nothing": (lambda shop: index_corpus("", shop), "source is empty"),
    "index what is not there": (lambda shop: index_corpus("none.jsonl", shop), "none.jsonl"),
    "index a URL": (lambda shop: index_corpus("https://example.org/a.parquet", shop), "https://example.org/a.parquet"),
    "index into a path": (lambda shop: index_corpus(".", "shop"), r"collection is str 'shop'.*Collection.open\('shop'"),
    "index into None": (lambda shop: index_corpus(".", None), "collection is None"),
    "workers of a text": (lambda shop: index_corpus(".", shop, workers="2"), "workers is str '2'"),
    "workers below 0": (lambda shop: index_corpus(".", shop, workers=-1), "workers"),
    "shards of nothing": (lambda shop: index_corpus(".", shop, shard_size=0), "shard_size"),
    "shards of a fraction": (lambda shop: index_corpus(".", shop, shard_size=2.5), "shard_size is float 2.5"),
    "prune more than all": (lambda shop: index_corpus(".", shop, prune_most=2), "prune_most"),
    "prune a text": (lambda shop: index_corpus(".", shop, prune_most="all"), "prune_most"),
    # IndexSettings
    "settings kind": (lambda shop: IndexSettings(kind="hsnw"), "Did you mean 'hnsw'"),
    "settings kind of a number": (lambda shop: IndexSettings(kind=5), "index kind '5' is not known"),
    "settings device": (lambda shop: IndexSettings(device="cuda:0"), "Did you mean 'cuda'"),
    "settings recall": (lambda shop: IndexSettings(recall="high"), "recall"),
    "settings recall of 95": (lambda shop: IndexSettings(recall=95), "recall"),
    "settings memory": (lambda shop: IndexSettings(memory_budget="4 gigs"), "not an amount of memory"),
    "settings memory of None": (lambda shop: IndexSettings(memory_budget=[4]), "not an amount of memory"),
    "settings memory of True": (lambda shop: IndexSettings(memory_budget=True), "not an amount of memory"),
    "settings half": (lambda shop: IndexSettings(half="yes"), "half is str 'yes'"),
    # Retriever
    "retriever of a path": (lambda shop: Retriever("shop"), r"Retriever takes a Collection, not str 'shop'.*Collection.open\('shop'\)"),
    "retriever of a Path": (lambda shop: Retriever(Path("shop")), r"Retriever takes a Collection"),
    "retriever of None": (lambda shop: Retriever(None), "Retriever takes a Collection, not None"),
    "retriever of a snapshot": (lambda shop: Retriever(shop.snapshot()), "Retriever takes a Collection"),
    "retriever of the class": (lambda shop: Retriever(Collection), "Retriever takes a Collection"),
    "method misspelt": (lambda shop: ask(shop, "slrep"), "method 'slrep' is not known. Did you mean 'slerp'"),
    "method of a number": (lambda shop: ask(shop, 5), "method '5' is not known"),
    "method None": (lambda shop: ask(shop, None), "method 'None' is not known"),
    "weights of a mapping": (lambda shop: ask(shop, weights={"text": 1}), r"weights is dict.*Write Weights\("),
    "weights misspelt": (lambda shop: ask(shop, weights=Weights(alpha=1)), "does not read the weight alpha"),
    "weight of a text": (lambda shop: Weights(text="1"), "weight text is '1'"),
    "weight of True": (lambda shop: Weights(text=True), "weight text is True"),
    "weight NaN": (lambda shop: Weights(text=float("nan")), "finite"),
    "merge misspelt": (lambda shop: ask(shop, "cig", merge="embde"), "Did you mean 'embed'"),
    "gate of a text": (lambda shop: ask(shop, gate="0.1"), "gate is str '0.1'"),
    "center misspelt": (lambda shop: ask(shop, center="atuo"), "Did you mean 'auto'"),
    "pseudo_targets of a text": (lambda shop: ask(shop, pseudo_targets="x"), "pseudo_targets is str 'x'"),
    "captions of a text": (lambda shop: ask(shop, captions="x"), "captions is str 'x'"),
    # Retriever.search
    "search a text": (lambda shop: ask(shop).search("red"), r"search takes a Query, not str 'red'.*Query\(text='red'\)"),
    "search an image": (lambda shop: ask(shop).search(b"\x89PNG"), r"search takes a Query, not bytes.*Query\(image=...\)"),
    "search nothing": (lambda shop: ask(shop).search(None), "search takes a Query, not None"),
    "search a list": (lambda shop: ask(shop).search([Query(text="x")]), "search_batch"),
    "batch of one": (lambda shop: ask(shop).search_batch(Query(text="x")), r"search_batch takes a list.*search\(query\)"),
    "batch of a text": (lambda shop: ask(shop).search_batch("red"), "search_batch takes a list"),
    "batch of texts": (lambda shop: ask(shop).search_batch(["red"]), r"queries\[0\] is str 'red'"),
    "batch of None": (lambda shop: ask(shop).search_batch(None), "search_batch takes a list"),
    "stream a text": (lambda shop: list(ask(shop).stream("red")), "takes a Query, not str 'red'"),
    "encode texts": (lambda shop: ask(shop).encode(["red"]), r"queries\[0\] is str 'red'"),
    "encode one": (lambda shop: ask(shop).encode(Query(text="x")), "encode takes a list"),
    "k of True": (lambda shop: ask(shop).search(Query(text="x"), k=True), "k is bool True"),
    "k of a numpy truth": (lambda shop: ask(shop).search(Query(text="x"), k=np.True_), "k is bool"),
    "k of a text": (lambda shop: ask(shop).search(Query(text="x"), k="3"), "k is str '3'"),
    "k of a fraction": (lambda shop: ask(shop).search(Query(text="x"), k=3.0), "k is float 3.0"),
    "k of None": (lambda shop: ask(shop).search(Query(text="x"), k=None), "k is None"),
    "k of 0": (lambda shop: ask(shop).search(Query(text="x"), k=0), "k is 0; it must be a whole number of at least 1"),
    "k below 0": (lambda shop: ask(shop).search(Query(text="x"), k=np.int8(-1)), "k is -1"),
    "where of a text": (lambda shop: ask(shop).search(Query(text="x"), where="n"), "A filter is an object"),
    "where of a list": (lambda shop: ask(shop).search(Query(text="x"), where=[1]), "A filter is an object"),
    "where of 0": (lambda shop: ask(shop).search(Query(text="x"), where=0), "A filter is an object"),
    "exclude a text": (lambda shop: ask(shop).search(Query(text="x"), exclude="a"), r"exclude is the one text 'a'.*\['a'\]"),
    "exclude a number": (lambda shop: ask(shop).search(Query(text="x"), exclude=5), "exclude is int 5"),
    "exclude numbers": (lambda shop: ask(shop).search(Query(text="x"), exclude=[5]), r"exclude\[0\] is int 5"),
    "modality misspelt": (lambda shop: ask(shop).search(Query(text="x"), modalities=["txet"]), "Did you mean 'text'"),
    "modalities of a number": (lambda shop: ask(shop).search(Query(text="x"), modalities=5), "modalities is int 5"),
    "rank nothing": (lambda shop: ask(shop).rank(["x"], 1), r"encoded\[0\] is str 'x'.*encode"),
    "rank k": (lambda shop: ask(shop).rank([], "1"), "k is str '1'"),
    "places of texts": (lambda shop: ask(shop).places([], "a"), "documents"),
    "require a text": (lambda shop: ask(shop).require("a"), "documents is the one text 'a'"),
    # Query
    "query of nothing": (lambda shop: Query(), "needs something to look for"),
    "query of a number": (lambda shop: Query(5), "`text` is a int|`text` is int 5"),
    "query of bytes": (lambda shop: Query(b"red"), "`text` is"),
    "query of white space": (lambda shop: Query("  "), "`text` is empty"),
    "image of a number": (lambda shop: Query(image=5), "`image` is"),
    "image of an array": (lambda shop: Query(image=np.zeros((4, 4, 3), np.uint8)), r"`image` is.*ndarray.*Image.fromarray"),
    "image of nothing": (lambda shop: Query(image=""), "empty path"),
    "image with NUL": (lambda shop: ask(shop, "image").search(Query(image="a\0b")), "NUL"),
    "image by URL": (lambda shop: Query(image=URL), f"{URL}.*not fetched"),
    "image by URL as a path": (lambda shop: Query(image=Path(URL)), f"{URL}.*not fetched"),
    "image by mistyped URL": (lambda shop: Query(image="http://[::1/cat.jpg"), r"http://\[::1/cat.jpg.*not fetched"),
    "image as data": (lambda shop: Query(image="data:image/png;base64,AAAA"), "data:image/png.*bytes"),
    "negative by URL": (lambda shop: Query("x", not_images=URL), f"`not_images` is.*{URL}"),
    "like of a number": (lambda shop: Query(like=5), "`like` is 5"),
    "like what is not there": (lambda shop: ask(shop, "image").search(Query(like="zzz")), "'zzz' is not in the collection"),
    "like and image": (lambda shop: Query(like="a", image="b.png"), "both"),
    "negatives of a number": (lambda shop: Query("x", not_texts=5), "`not_texts` is"),
    "negatives of None": (lambda shop: Query("x", not_texts=(None,)), "`not_texts` is"),
    "wordings of a number": (lambda shop: Query("x", wordings=[5]), "`wordings` is"),
    "caption of a number": (lambda shop: Query("x", caption=5), "`caption` is"),
    "instruction of a number": (lambda shop: Query("x", instruction=5), "`instruction` is"),
    "weights of a query": (lambda shop: Query("x", weights={"text": 1}), "Write Weights"),
    # items, options
    "item of a number": (lambda shop: Item(5), "Item.text is int 5"),
    "item of nothing": (lambda shop: Item(), "neither"),
    "item of an image path": (lambda shop: Item(image="cat.jpg"), "never taken for a path"),
    "item of an image number": (lambda shop: Item(image=5), "Item.image is int 5"),
    "embed a text": (lambda shop: load_embedder("fake:16").encode_query("red"), r"takes a list of Items, not str 'red'"),
    "embed texts": (lambda shop: load_embedder("fake:16").encode_query(["red"]), r"items\[0\] is str 'red'.*Item\(text="),
    "embed an item": (lambda shop: load_embedder("fake:16").encode_document(Item("red")), r"takes a list of Items"),
    "load a number": (lambda shop: load_embedder(5), "model is int 5|name"),
    "load nothing": (lambda shop: load_embedder(""), ""),
    "open a very long name": (lambda shop: Collection.open("x" * 5000, model="fake:16"), "longer than a path can be"),
    "open half a pair": (lambda shop: Collection.open("a\ud800", model="fake:16"), "half a surrogate pair"),
    "parts of an array": (lambda shop: Collection.open(shop.path, parts=ARRAY), "parts.*is not known"),
    "settings of an array": (lambda shop: Collection.open(shop.path, index=ARRAY), "index kind.*is not known"),
    "dtype of an array": (lambda shop: Collection.open(shop.path, dtype=ARRAY), "dtype.*is not known"),
    "trust of an array": (lambda shop: Collection.open(shop.path, trust=ARRAY), "trust is ndarray"),
    "method of an array": (lambda shop: ask(shop, ARRAY), "method.*is not known"),
    "center of an array": (lambda shop: ask(shop, center=ARRAY), "is not known"),
    "device of very long": (lambda shop: Collection.open(shop.path, device="x" * 9999), "no device"),
    "build by a number": (lambda shop: shop.build_index(5), "queries is int 5"),
    "build by texts": (lambda shop: shop.build_index({"texts": "red"}), "'texts' are str 'red'"),
    "build coverage": (lambda shop: shop.build_index(coverage="all"), "coverage is str 'all'"),
    "build progress": (lambda shop: shop.build_index(on_progress=5), "on_progress is int 5"),
    "check progress": (lambda shop: shop.check(5), "on_file is int 5"),
    "prune of a text": (lambda shop: index_corpus(".", shop, prune="yes"), "prune is str 'yes'"),
    "replace of an array": (lambda shop: index_corpus(".", shop, replace=ARRAY), "replace is ndarray"),
    "confirm of True": (lambda shop: index_corpus(".", shop, confirm=True), "confirm is bool True"),
    "progress of a text": (lambda shop: index_corpus(".", shop, on_progress="x"), "on_progress is str 'x'"),
    "exif of a text": (lambda shop: index_corpus(".", shop, exif="no"), "exif is str 'no'"),
    "prune most of very many": (lambda shop: index_corpus(".", shop, prune_most=10**400), "prune_most"),
    "workers of very many": (lambda shop: index_corpus(".", shop, workers=10**400), "workers"),
    "source of an array": (lambda shop: index_corpus(ARRAY, shop), "path or a Corpus"),
    "search modalities of a number": (lambda shop: shop.snapshot().search(VECTOR, 1, modalities=5), "modalities is int 5"),
    "scan modalities of a number": (lambda shop: shop.snapshot().scan(VECTOR, modalities=5), "modalities is int 5"),
    "documents of None": (lambda shop: shop.snapshot().documents(None), "ids is None"),
    "documents of texts": (lambda shop: shop.snapshot().documents(["a"]), r"ids is list \['a'\]"),
    "vectors of a fraction": (lambda shop: shop.snapshot().vectors([1.5]), "ids is list"),
    "keep reference of a text": (lambda shop: ask(shop).search(Query("x"), keep_reference="no"), "keep_reference is str 'no'"),
    "keep reference of an array": (lambda shop: ask(shop).search_batch([Query("x")], keep_reference=ARRAY), "keep_reference is ndarray"),
    "rank exclude of a number": (lambda shop: ask(shop).rank(ask(shop).encode([Query("x")]), 1, 5), "exclude is int 5"),
    "rank exclude of numbers": (lambda shop: ask(shop).rank(ask(shop).encode([Query("x")]), 1, [[5]]), r"exclude\[0\]\[0\] is int 5"),
    "rank exclude of too few": (lambda shop: ask(shop).rank(ask(shop).encode([Query("x")]), 1, []), "0 entries for 1 queries"),
    "rank among too many": (lambda shop: ask(shop).rank_among(ask(shop).encode([Query("x")]), [["a"]] * 2), "2 entries for 1 queries"),
    "places of too few": (lambda shop: ask(shop).places(ask(shop).encode([Query("x")]), []), "0 entries for 1 queries"),
    "keep ties of a text": (lambda shop: ask(shop).rank([], 1, keep_ties="no"), "keep_ties is str 'no'"),
    "weight of very many digits": (lambda shop: Weights(text=10**400), "weight text is"),
    "weight of a collection": (lambda shop: Weights(text=shop), "weight text is Collection"),
    "gate of very many digits": (lambda shop: ask(shop, gate=10**400), "gate is int"),
    "wordings of an array": (lambda shop: Query("x", wordings=ARRAY), "`wordings`"),
    "uri of an array": (lambda shop: shop.add(Document("z", text="t", uri=ARRAY)), "uri"),
    "pseudo_targets template": (lambda shop: PseudoTargetProvider(template=5), "template is int 5"),
    "pseudo_targets deadline": (lambda shop: PseudoTargetProvider(deadline_ms="5"), "deadline_ms is str '5'"),
    "pseudo_targets cache": (lambda shop: PseudoTargetProvider(cache=ARRAY), "cache is ndarray"),
    "pseudo_targets options": (lambda shop: PseudoTargetProvider(options=ARRAY), "options is ndarray"),
    "captions cache": (lambda shop: CaptionRewriter(cache=5), "cache is int 5"),
    "captions strict": (lambda shop: CaptionRewriter(strict="no"), "strict is str 'no'"),
    "steps of a text": (lambda shop: GenerateOptions(steps="8"), "steps"),
}  # fmt: skip


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_says_what_is_wrong_and_what_to_write(shop, call):
    made, told = WRONG[call]
    with pytest.raises(UnderdrawingError, match=f"(?s){told}") as caught:
        made(shop)
    text = str(caught.value)
    assert caught.value.message
    assert len(text) < 600
    assert "Traceback" not in text
    assert "object at 0x" not in text


RIGHT = {
    "k of numpy": lambda shop: ask(shop).search(Query(text="x"), k=np.int64(1)),
    "k of a small numpy": lambda shop: ask(shop).search(Query(text="x"), k=np.uint8(1)),
    "k of very many": lambda shop: ask(shop).search(Query(text="x"), k=10**12),
    "snapshot k of numpy": lambda shop: shop.snapshot().search(VECTOR, np.int32(1)),
    "snapshot vectors of float64": lambda shop: shop.snapshot().search(VECTOR.astype(np.float64), 1),
    "snapshot vectors of lists": lambda shop: shop.snapshot().search(VECTOR.tolist(), 1),
    "exclude a set": lambda shop: ask(shop).search(Query(text="x"), exclude={"a"}),
    "exclude an array": lambda shop: ask(shop).search(Query(text="x"), exclude=np.array(["a"])),
    "exclude what is not there": lambda shop: ask(shop).search(Query(text="x"), exclude=["zzz", "\ud800", "\0"]),
    "one modality": lambda shop: ask(shop).search(Query(text="x"), modalities="text"),
    "modalities of a set": lambda shop: ask(shop).search(Query(text="x"), modalities={"text"}),
    "batch of a generator": lambda shop: ask(shop).search_batch(Query(text=each) for each in ("x", "y")),
    "batch of none": lambda shop: ask(shop).search_batch([]),
    "a lone negative": lambda shop: ask(shop).search(Query("x", not_texts="y")),
    "a numpy text": lambda shop: ask(shop).search(Query(np.str_("x"))),
    "where of nothing": lambda shop: ask(shop).search(Query("x"), where={}),
    "settings by name": lambda shop: IndexSettings(kind="exact", device="cpu"),
    "weights of numpy": lambda shop: ask(shop, weights=Weights(negative=np.float32(0.5))).search(Query("x", not_texts="y")),
    "delete an array": lambda shop: shop.delete(np.array(["zzz"])),
    "one item after another": lambda shop: load_embedder("fake:16").encode_query(Item(text=each) for each in "ab"),
}  # fmt: skip


@pytest.mark.parametrize("call", RIGHT)
def test_what_can_be_understood_is(shop, call):
    RIGHT[call](shop)


def test_nothing_was_stored_and_no_thread_was_left_by_wrong_calls(shop):
    before = threading.active_count()
    for made, _ in WRONG.values():
        with pytest.raises(UnderdrawingError):
            made(shop)
    assert len(shop.snapshot()) == 2
    assert threading.active_count() <= before
    assert not (shop.path.parent / "new").exists()
