"""The bundled models: they fit together, they are as small as promised, and they do what their cards say, roughly."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from indexer.bundled import CORPUS, FOLDER, generator_folder, inversion_folder
from indexer.corpus.readers import open_corpus
from indexer.embed import load_embedder
from indexer.errors import CallError
from indexer.types import Item
from retrieval import GenerateOptions, PseudoTargetProvider
from retrieval.providers.generation import PseudoTargetRequest
from retrieval.providers.pseudo_target import Reference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MODELS = ("emoji-clip", "emoji-inversion", "emoji-generator")


@pytest.fixture(scope="module")
def embedder():
    return load_embedder("bundled:emoji-clip")


@pytest.fixture(scope="module")
def pictures():
    """Every 97th drawing of the corpus."""
    return [record.document.image for record in itertools.islice(open_corpus(str(CORPUS)), 0, 3000, 97)]


def test_models_are_as_small_as_promised():
    sizes = {name: sum(file.stat().st_size for file in (FOLDER / name).rglob("*") if file.is_file()) for name in MODELS}
    assert max(sizes.values()) < 16_000_000, sizes
    assert sum(sizes.values()) < 36_000_000, sizes


@pytest.mark.parametrize("name", MODELS)
def test_models_have_cards_and_safe_weights(name):
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert "license" in card.lower()
    files = [file for file in (FOLDER / name).rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_the_inversion_was_trained_for_the_model(embedder):
    config = json.loads((inversion_folder("emoji-inversion") / "inversion.json").read_text())
    assert config["text_tower"] == embedder.fingerprint().weights


def test_a_word_alone_finds_its_picture(embedder, pictures):
    vectors = embedder.encode_document([Item(image=picture) for picture in pictures])
    words = PseudoTargetProvider().inversion(embedder).words(vectors)
    said = embedder.encode_pseudo_words("{word}", [""] * len(words), words)
    found = (said @ vectors.T).argmax(1) == np.arange(len(vectors))
    assert found.mean() > 0.9


def test_a_drawing_is_nearer_to_what_is_meant_than_chance(embedder, pictures):
    vectors = embedder.encode_document([Item(image=picture) for picture in pictures])
    generator = PseudoTargetProvider().generator(embedder)
    drawings = generator.generate([PseudoTargetRequest("", (vector,)) for vector in vectors], GenerateOptions(steps=4))
    drawn = embedder.encode_query([Item(image=drawing.images[0]) for drawing in drawings])
    ranks = (drawn @ vectors.T > (drawn * vectors).sum(1)[:, None]).sum(1)
    assert np.median(ranks) < len(vectors) / 6
    assert generator.name == "bundled:emoji-generator"
    assert generator_folder("emoji-generator").name == "emoji-generator"


def test_the_studio_takes_them_by_itself(embedder, pictures, tmp_path):
    vector = embedder.encode_query([Item(image=pictures[0])])[0]
    [made] = PseudoTargetProvider(cache=tmp_path, options=GenerateOptions(steps=1)).generate(
        embedder, ["in blue"], [Reference((pictures[0],), vector)]
    )
    assert made.note is None
    assert made.reference is not None
    assert np.isfinite(made.reference.vector).all()


def test_a_model_that_is_no_longer_bundled_is_told_what_to_do():
    with pytest.raises(CallError, match=r"emoji-gme was removed in 0\.2.*docs/joint\.md"):
        load_embedder("bundled:emoji-gme")
