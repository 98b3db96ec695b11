"""Our embedders through the interface of sentence-transformers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from indexer.embed import load_embedder
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, ItemError
from indexer.types import Item, Modality
from pipelines.interop.sentence_transformers import as_sentence_transformer

TEXTS = ["red cat", "cat", "a much longer text about dogs"]


class Noting(FakeEmbedder):
    """Remembers what it was asked."""

    reads_instructions = True

    def __init__(self, dim=16):
        super().__init__(dim)
        self.batch_size = 2
        self.asked = []

    def forward(self, prepared, role, instruction=None):
        self.asked.append((len(prepared), role.value, instruction))
        return super().forward(prepared, role, instruction)


@pytest.fixture
def picture():
    return Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))


@pytest.fixture
def model():
    return as_sentence_transformer("fake:64")


@pytest.fixture
def embedder():
    return load_embedder("fake:64")


def test_texts_pictures_and_both_get_the_embedders_vectors(model, embedder, picture):
    np.testing.assert_allclose(model.encode(TEXTS), embedder.encode_document([Item(t) for t in TEXTS]), atol=1e-6)
    np.testing.assert_allclose(model.encode("cat"), embedder.encode_document([Item("cat")])[0], atol=1e-6)
    np.testing.assert_allclose(model.encode(picture), embedder.encode_query([Item(image=picture)])[0], atol=1e-6)
    both, one = (
        model.encode_query([{"text": "cat", "image": picture}]),
        model.encode_query([{"image": picture}, picture]),
    )
    np.testing.assert_allclose(both, embedder.encode_query([Item("cat", picture)]), atol=1e-6)
    np.testing.assert_allclose(one, embedder.encode_query([Item(image=picture)] * 2), atol=1e-6)
    np.testing.assert_allclose(model.encode([{"text": "cat"}, "cat"])[0], model.encode("cat"), atol=1e-6)
    assert model.encode(TEXTS).dtype == np.float32
    assert model.encode([]).shape == (0,)


def test_the_librarys_ways_to_ask_work(model, embedder):
    assert model.get_embedding_dimension() == 64
    assert model.supports(("image", "text"))
    tensor = model.encode_document(TEXTS, convert_to_tensor=True, batch_size=1)
    assert tuple(tensor.shape) == (3, 64)
    scores = model.similarity(model.encode_query(["red cat"]), tensor)
    expected = embedder.encode_query([Item("red cat")]) @ embedder.encode_document([Item(t) for t in TEXTS]).T
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)
    assert model.encode(TEXTS, truncate_dim=8).shape == (3, 8)


def test_an_image_in_a_dictionary_may_be_a_path_and_a_bare_string_is_a_text(model, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture.save("cat.png")
    expected = model.encode(picture)
    np.testing.assert_array_equal(model.encode([{"image": "cat.png"}])[0], expected)
    np.testing.assert_array_equal(model.encode([{"image": (tmp_path / "cat.png").read_bytes()}])[0], expected)
    text = load_embedder("fake:64").encode_document([Item("cat.png")])[0]
    np.testing.assert_allclose(model.encode("cat.png"), text, atol=1e-6)


def test_sides_batches_and_prompts_reach_the_embedder():
    noting = Noting()
    model = as_sentence_transformer(noting)
    model.encode_query(TEXTS)
    assert noting.asked == [(2, "query", None), (1, "query", None)]
    noting.asked.clear()
    model.encode_query(TEXTS[:1], prompt="Find it.")
    model.encode_document(TEXTS[:1])
    model.encode(TEXTS[:1])
    assert noting.asked == [(1, "query", "Find it."), (1, "document", None), (1, "document", None)]
    prompted = model.encode_document(TEXTS[:1], prompt="small ")
    np.testing.assert_allclose(prompted, noting.encode_document([Item("small red cat")]), atol=1e-6)


def test_a_model_without_instructions_reads_a_prompt_before_the_text(model, embedder):
    np.testing.assert_allclose(
        model.encode_query(["cat"], prompt="red "), embedder.encode_query([Item("red cat")]), atol=1e-6
    )


def test_what_the_model_does_not_take_is_refused(model, picture):
    embedder = FakeEmbedder(16)
    embedder.modalities = frozenset({Modality.TEXT})
    texts_only = as_sentence_transformer(embedder)
    assert texts_only.modalities == ["text"]
    with pytest.raises((CallError, ValueError), match="image"):
        texts_only.encode([{"image": picture}])
    with pytest.raises(CallError, match="A int is no input"):
        model.encode([3])
    with pytest.raises(CallError, match="A dict is no input"):
        model.encode([{"text": "a", "weight": 3}])
    with pytest.raises(ItemError):
        model.encode([{"image": b"no picture"}])


def test_saved_and_loaded_by_name(model, tmp_path):
    from sentence_transformers import SentenceTransformer

    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_without_the_library_the_pip_line_is_told():
    code = "import sys; sys.modules['sentence_transformers'] = None; import pipelines.interop.sentence_transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'underdrawing[sentence-transformers]'" in done.stderr
