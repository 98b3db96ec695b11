"""Models of sentence-transformers as embedders: the same vectors, alone and in a batch."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from functools import cache

import numpy as np
import pytest
import tiny_st
import torch
from PIL import Image
from safetensors.torch import load_file

from indexer import Collection, Document
from indexer.embed import load_embedder
from indexer.errors import CallError, MissingExtraError, ModelError
from indexer.types import Item, Modality, Role
from indexer.vectors.unit import unit_rows
from retrieval import Query, Retriever

TEXTS = ["a red cat", "two small dogs sit in the night and the cat runs", "blue", "heart"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return tiny_st.tiny_texts(tmp_path_factory.mktemp("st"))


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    return tiny_st.tiny_towers(tmp_path_factory.mktemp("st"))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (20 + 9 * n, 24, 3), np.uint8)) for n in range(3)]


def load_anew(folder, **options):
    return load_embedder(f"st:{folder}", **options)


load = cache(load_anew)
"""For folders that stay as they are."""


@cache
def native(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def close(left, right):
    np.testing.assert_allclose(left, right, atol=2e-6)


def test_texts_get_the_librarys_vectors_with_the_prompt_of_their_side(texts):
    model, own = load(texts), native(texts)
    assert (model.dim, model.modalities, model.batch_size) == (16, {Modality.TEXT}, 64)
    items = [Item(each) for each in TEXTS]
    close(model.encode_query(items), unit_rows(own.encode_query(TEXTS)))
    close(model.encode_document(items), unit_rows(own.encode_document(TEXTS)))
    assert np.abs(model.encode_query(items) - model.encode_document(items)).max() > 0.01
    close(np.linalg.norm(model.encode_query(items), axis=1), 1)
    assert model.encode_query(items).dtype == np.float32


def test_towers_get_the_librarys_vectors(towers, pictures):
    model, own = load(towers), native(towers)
    assert (model.dim, model.modalities) == (16, frozenset(Modality))
    close(model.encode_document([Item(image=each) for each in pictures]), unit_rows(own.encode(pictures)))
    close(model.encode_query([Item(each) for each in TEXTS]), unit_rows(own.encode(TEXTS)))
    fused = model.encode_document([Item(TEXTS[0], pictures[0])])
    parts = unit_rows(own.encode([TEXTS[0]])) + unit_rows(own.encode([pictures[0]]))
    close(fused, unit_rows(parts))


@pytest.mark.parametrize("kind", ["texts", "towers"])
def test_one_and_a_mixed_batch_get_the_same(request, kind, pictures):
    model = load(request.getfixturevalue(kind))
    items = [Item(each) for each in TEXTS]
    if kind == "towers":
        items = [items[0], Item(image=pictures[0]), items[1], Item(TEXTS[2], pictures[1]), Item(image=pictures[2])]
    for role in Role:
        together = model.try_encode(items, role).vectors
        close(together, np.concatenate([model.try_encode([each], role).vectors for each in items]))
    assert len({tuple(np.round(row, 4)) for row in together}) == len(items)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # the library's own way to read a file
def test_a_text_that_names_a_picture_is_a_text(towers, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures[0].save("cat.png")
    model = load(towers)
    close(native(towers).encode("cat.png"), native(towers).encode(pictures[0]))  # the trap is there
    assert np.abs(model.encode_query([Item("cat.png")]) - model.encode_query([Item(image=pictures[0])])).max() > 0.01
    before = model.encode_query([Item("cat.png")])
    (tmp_path / "cat.png").unlink()
    close(model.encode_query([Item("cat.png")]), before)


def test_a_bad_item_costs_itself(towers, pictures):
    outcome = load(towers).try_encode([Item(image=pictures[0]), Item(image=b"no picture"), Item("a")], Role.DOCUMENT)
    assert outcome.rows.tolist() == [0, 2]
    assert list(outcome.errors) == [1]
    close(outcome.vectors[:1], load(towers).encode_document([Item(image=pictures[0])]))


def test_a_model_of_texts_takes_no_pictures(texts, pictures):
    with pytest.raises(CallError, match="does not embed 'image' items; it takes text"):
        load(texts).encode_query([Item(image=pictures[0])])


def test_what_is_prepared_is_picklable_without_the_model(towers, pictures):
    prepare = pickle.loads(pickle.dumps(load(towers).preparer()))
    prepared = prepare(Item("a\0", pictures[0]))
    assert prepared.arrays["image"].shape == (20, 24, 3)
    assert str(prepared.arrays["text"]) == "a "
    assert prepared.modality is Modality.FUSED


def test_a_fingerprint_is_what_the_vectors_depend_on(texts, towers, tmp_path):
    model = load(texts)
    assert load_anew(texts).fingerprint() == model.fingerprint()
    copy = shutil.copytree(texts, tmp_path / "copy")
    assert load_anew(copy).fingerprint().digest == model.fingerprint().digest
    config = json.loads((copy / "config_sentence_transformers.json").read_text())
    (copy / "config_sentence_transformers.json").write_text(json.dumps(config | {"prompts": {"query": "other "}}))
    others = [load_anew(copy), load(towers), load(texts, dtype="bfloat16")]
    others.append(load(tiny_st.tiny_texts(tmp_path / "seed", seed=1)))
    assert len({each.fingerprint().digest for each in [model, *others]}) == 5


@pytest.mark.parametrize("kind", ["texts", "towers"])
def test_bfloat16_is_near_float32(request, kind, pictures):
    folder = request.getfixturevalue(kind)
    items = [Item(each) for each in TEXTS] + ([Item(image=each) for each in pictures] if kind == "towers" else [])
    cosines = (load(folder).encode_query(items) * load(folder, dtype="bfloat16").encode_query(items)).sum(1)
    assert cosines.min() > 0.99
    assert cosines.min() < 1 - 1e-7


def test_a_collection_is_made_and_searched_with_it(texts, tmp_path, closing):
    shop = closing(Collection.open(tmp_path / "shop", f"st:{texts}"))
    shop.add([Document(each, text=each) for each in TEXTS])
    results = Retriever(shop, "text").search(Query(text="blue"), k=4)
    own = native(texts)
    expected = (unit_rows(own.encode_query(["blue"])) @ unit_rows(own.encode_document(TEXTS)).T)[0]
    assert [hit.id for hit in results] == [TEXTS[n] for n in np.argsort(-expected)]
    assert results.model == f"st:{texts}"


def test_weights_that_would_be_unpickled_are_refused(texts, tmp_path):
    copy = shutil.copytree(texts, tmp_path / "copy")
    dense = next(folder for folder in copy.iterdir() if folder.name.endswith("Dense"))
    torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
    assert load_anew(copy).dim == 16  # beside the same as safetensors, it is not read
    (dense / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model.bin is not a safetensors file"):
        load_anew(copy)


def test_code_of_a_model_is_not_run(texts, tmp_path):
    copy = shutil.copytree(texts, tmp_path / "copy")
    modules = json.loads((copy / "modules.json").read_text())
    modules[0]["type"] = "own.Own"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="code of a folder's own is never run"):
        load_anew(copy)
    assert not (tmp_path / "ran").exists()


def test_models_that_cannot_be_loaded(texts, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        load("/no/where")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path / "empty")
    copy = shutil.copytree(texts, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_anew(copy)
    with pytest.raises(CallError, match="float16 is slow"):
        load(texts, dtype="float16")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'underdrawing\[sentence-transformers\]'"):
        load_anew(texts)
