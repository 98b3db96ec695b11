"""mteb evaluates our embedders and methods on small generated tasks."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from indexer.embed import load_embedder
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, ItemsError, MissingExtraError, QueryError, UnknownNameError
from indexer.types import Item, Modality
from pipelines.interop.mteb import MtebEncoder, MtebRetriever
from retrieval import CaptionRewriter
from retrieval.providers.language.plain import TableCaptioner

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = ["red cat", "blue cat", "red dog", "blue dog", "night sky"]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))


def picture(number):
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (12, 12 + number, 3), np.uint8))


def make_task(category, queries, corpus, right, *, top_ranked=None, prompt=None, kind="Any2AnyRetrieval"):
    """A task of mteb whose data are at hand."""
    import datasets
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    class Local(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Local{category.upper()}", description="made here", reference=None, type=kind, category=category,
            modalities=sorted({{"t": "text", "i": "image"}[each] for each in category.replace("2", "")}, reverse=True),
            dataset={"path": "local/local", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="recall_at_1", date=("2020-01-01", "2020-01-02"), domains=["Web"], task_subtypes=[],
            license="cc0-1.0", annotations_creators="derived", dialect=[], sample_creation="created", bibtex_citation="",
            prompt=prompt,
        )  # fmt: skip

        def load_data(self, *_, **__):
            self.dataset = {
                "default": {
                    "test": {
                        "queries": datasets.Dataset.from_list(queries),
                        "corpus": datasets.Dataset.from_list(corpus),
                        "relevant_docs": right,
                        "top_ranked": top_ranked,
                    }
                }
            }
            self.data_loaded = True

    return Local()


def scores(model, task):
    import mteb

    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return result.task_results[0].scores["test"][0]


TEXTS = {
    "queries": [{"id": f"q{n}", "text": word.split()[0]} for n, word in enumerate(WORDS[4:])]
    + [{"id": "q9", "text": "blue dog"}],
    "corpus": [{"id": f"d{n}", "text": word, "title": ""} for n, word in enumerate(WORDS)],
    "right": {"q0": {"d4": 1}, "q9": {"d3": 1}},
}


def composed(**more):
    """A picture and a text find the picture and text of both."""
    queries = [{"id": f"q{n}", "image": picture(n), "text": word} for n, word in enumerate(WORDS)]
    corpus = [{"id": f"d{n}", "image": picture(n), "text": word} for n, word in enumerate(WORDS)]
    return make_task("it2it", queries, corpus, {f"q{n}": {f"d{n}": 1} for n in range(5)}, **more)


def test_text_retrieval():
    assert scores(MtebEncoder("fake:64"), make_task("t2t", **TEXTS, kind="Retrieval"))["recall_at_1"] == 1.0
    wrong = TEXTS | {"right": {"q0": {"d0": 1}, "q9": {"d1": 1}}}
    assert scores(MtebEncoder("fake:64"), make_task("t2t", **wrong, kind="Retrieval"))["recall_at_1"] == 0.0


def test_pictures_and_texts_together():
    assert scores(MtebEncoder("fake:64"), composed())["recall_at_1"] == 1.0


def test_only_what_the_task_is_about_is_read():
    """Pictures are the same on both sides; texts, which the task leaves aside, would mislead."""
    queries = [{"id": f"q{n}", "image": picture(n), "text": WORDS[n]} for n in range(4)]
    corpus = [{"id": f"d{n}", "image": picture(n), "text": WORDS[3 - n]} for n in range(4)]
    task = make_task("i2i", queries, corpus, {f"q{n}": {f"d{n}": 1} for n in range(4)})
    for model in (MtebEncoder("fake:64"), MtebRetriever("fake:64")):
        assert scores(model, task)["recall_at_1"] == 1.0


def test_the_real_composed_tasks_are_of_a_kind_that_is_tested():
    import mteb

    for task in mteb.get_tasks(tasks=["CIRRIT2IRetrieval", "FashionIQIT2IRetrieval"]):
        assert (task.metadata.category, task.metadata.type) == ("it2i", "Any2AnyRetrieval")
    queries = [{"id": f"q{n}", "image": picture(n), "text": "as it is"} for n in range(4)]
    corpus = [{"id": f"d{n}", "image": picture(n), "text": None} for n in range(4)]
    task = make_task("it2i", queries, corpus, {f"q{n}": {f"d{n}": 1} for n in range(4)})
    for model in (MtebEncoder("fake:64"), MtebRetriever("fake:64", "sum")):
        assert scores(model, task)["recall_at_1"] == 1.0


class Noting(FakeEmbedder):
    """Remembers what it was asked."""

    def __init__(self, dim):
        super().__init__(dim)
        self.asked = []

    def forward(self, prepared, role, instruction=None):
        self.asked += [(each.modality.value, role.value, instruction) for each in prepared]
        return super().forward(prepared, role, instruction)


@pytest.mark.parametrize("prompt", [{"query": "Find it."}, "Find it.", {"document": "A thing."}, None])
def test_sides_and_instructions_reach_the_model(prompt):
    model = Noting(16)
    scores(MtebEncoder(model), composed(prompt=prompt))
    told = "Find it." if prompt in ("Find it.", {"query": "Find it."}) else None
    assert set(model.asked) == {("image+text", "query", told), ("image+text", "document", None)}


def test_batches_give_the_vectors_of_the_model():
    model, encoder = load_embedder("fake:16"), MtebEncoder("fake:16")
    batches = [
        {"text": ["a", "b"], "image": [picture(1), picture(2)]},
        {"text": ["", " "], "image": [picture(3), None]},
        {"image": [picture(4)], "id": ["x"]},
        {"text": ["c"], "body": ["d"]},
    ]
    items = [
        Item("a", picture(1)), Item("b", picture(2)), Item(image=picture(3)), Item(" "), Item(image=picture(4)), Item("c"),
    ]  # fmt: skip
    how = {"task_metadata": SimpleNamespace(prompt=None), "hf_split": "test", "hf_subset": "default"}
    vectors = encoder.encode(batches, **how, batch_size=2)
    np.testing.assert_array_equal(vectors, model.encode_query(items))
    assert vectors.dtype == np.float32
    assert encoder.encode([], **how).shape == (0, 16)
    np.testing.assert_allclose(encoder.similarity(vectors, vectors[:2]), vectors @ vectors[:2].T, atol=1e-6)
    np.testing.assert_allclose(encoder.similarity_pairwise(vectors, vectors[::-1]), (vectors * vectors[::-1]).sum(1))
    with pytest.raises(CallError, match="neither text nor image, but audio"):
        encoder.encode([{"audio": [1]}], **how)
    with pytest.raises(ItemsError, match="1 of 2 items"):
        encoder.encode([{"image": [picture(1), b"no picture"]}], **how)


def test_tensors_are_compared_too():
    import torch

    encoder = MtebEncoder("fake:16")
    rows = torch.nn.functional.normalize(torch.randn(3, 16, dtype=torch.bfloat16, requires_grad=True), dim=1)
    expected = (rows.float() @ rows.float().T).detach().numpy()
    np.testing.assert_allclose(encoder.similarity(rows, rows), expected, atol=1e-6)
    assert encoder.similarity(rows[0], rows).shape == (1, 3)


def test_both_are_what_mteb_calls_by_these_names():
    from mteb.models.models_protocols import EncoderProtocol, SearchProtocol

    encoder, retriever = MtebEncoder("fake:16"), MtebRetriever("fake:16")
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, SearchProtocol)
    assert isinstance(retriever, SearchProtocol)


def test_the_card_tells_models_methods_and_fingerprints_apart():
    meta = MtebEncoder("fake:16", "ignored", device="cpu").mteb_model_meta
    assert (meta.name, meta.embed_dim, sorted(meta.modalities)) == ("underdrawing/fake-16", 16, ["image", "text"])
    assert meta.revision == load_embedder("fake:16").fingerprint().digest
    assert MtebEncoder("fake:32").mteb_model_meta.revision != meta.revision
    assert MtebRetriever("fake:16", "slerp").mteb_model_meta.name == "underdrawing/fake-16-slerp"
    model = load_embedder("fake:16")
    model.modalities = frozenset({Modality.TEXT})
    assert MtebEncoder(model).mteb_model_meta.modalities == ["text"]


def test_results_are_kept_by_mteb_under_the_name(tmp_path):
    import mteb

    cache = mteb.ResultCache(cache_path=tmp_path / "results")
    for _ in range(2):
        mteb.evaluate(MtebEncoder("fake:64"), composed(), cache=cache, show_progress_bar=False, co2_tracker=False)
    [file] = (tmp_path / "results").rglob("LocalIT2IT.json")
    assert "underdrawing__fake-64" in str(file)


@pytest.mark.parametrize("method", ["sum", "slerp", "product", "shift"])
def test_methods_answer_composed_tasks(method):
    assert scores(MtebRetriever("fake:64", method), composed())["recall_at_1"] == 1.0


def test_a_method_with_options_and_queries_of_one_part(tmp_path):
    """With captions that lead elsewhere, so that it is `caption` and nothing else which answers."""
    queries = [
        {"id": "q0", "image": picture(0), "text": "red"},
        {"id": "q1", "image": picture(1), "text": "red"},
        {"id": "q2", "image": None, "text": "night sky"},
    ]
    corpus = [{"id": f"d{n}", "text": word, "title": ""} for n, word in enumerate(WORDS)]

    class Turns(TableCaptioner):
        def caption(self, pictures):
            return ["dog" if each.width == 12 else "cat" for each in pictures]

    captions = CaptionRewriter(Turns({}), "join", cache=tmp_path)
    task = make_task("it2t", queries, corpus, {"q0": {"d2": 1}, "q1": {"d0": 1}, "q2": {"d4": 1}})
    assert scores(MtebRetriever("fake:64", "caption", captions=captions), task)["recall_at_1"] == 1.0


def test_documents_that_are_given_are_ranked():
    ranked = {f"q{n}": [f"d{(n + step) % 5}" for step in range(1, 3)] for n in range(5)}
    retriever = MtebRetriever("fake:64")
    task = composed(top_ranked=ranked)
    task.load_data()
    split = task.dataset["default"]["test"]
    retriever.index(split["corpus"], task_metadata=task.metadata)
    found = retriever.search(split["queries"], task_metadata=task.metadata, top_k=2, top_ranked=ranked)
    assert {name: set(own) for name, own in found.items()} == {name: set(own) for name, own in ranked.items()}


def test_what_cannot_be_used_is_an_error():
    task = make_task("t2t", **TEXTS)
    with pytest.raises(CallError, match="index a corpus first"):
        MtebRetriever("fake:16").search([], task_metadata=task.metadata, top_k=1)
    retriever = MtebRetriever("fake:16")
    with pytest.raises(CallError, match="1 of 1 documents cannot be used"):
        retriever.index([{"id": "a", "text": " "}], task_metadata=task.metadata)
    retriever.index([{"id": "a", "text": "x"}], task_metadata=task.metadata)
    with pytest.raises(CallError, match="a conversation"):
        retriever.search([{"id": "q", "text": [{"role": "user"}]}], task_metadata=task.metadata, top_k=1)
    with pytest.raises(QueryError, match="something to look for"):
        retriever.search([{"id": "q", "text": ""}], task_metadata=task.metadata, top_k=1)
    with pytest.raises(UnknownNameError, match="magic"):
        MtebRetriever("fake:16", "magic")


def test_without_mteb_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'underdrawing\[mteb\]'"):
        MtebEncoder("fake:16")
