"""A small collection of words."""

from __future__ import annotations

import numpy as np
import pytest
from fake_collection import FakeSnapshot, FakeSource, stored

from indexer.embed import load_embedder
from indexer.snapshot import Mean
from indexer.types import Item, Modality, Role

TEXTS = {
    "cat": "cat", "dog": "dog", "red-cat": "red cat", "red-dog": "red dog", "blue-cat": "blue cat",
    "blue": "blue", "night": "night sky", "day": "day sky", "dog-at-night": "dog night",
    "cat-at-night": "cat night",
}  # fmt: skip


@pytest.fixture
def embedder():
    return load_embedder("fake:64")


@pytest.fixture
def collection(embedder):
    """Ten documents that are words, with the means a collection would hold."""
    documents = [stored(name, text, length=len(text)) for name, text in TEXTS.items()]
    vectors = embedder.encode_document([Item(text=text) for text in TEXTS.values()])
    generic = embedder.encode_query([Item(text=text) for text in ("a thing", "some place", "the thing")])
    means = {
        (Role.DOCUMENT, Modality.IMAGE): Mean(len(vectors), vectors.mean(0)),
        (Role.QUERY, Modality.TEXT): Mean(3, generic.mean(0)),
    }
    return FakeSource(FakeSnapshot(documents, vectors, means), embedder)


@pytest.fixture
def empty(embedder):
    return FakeSource(FakeSnapshot([], np.empty((0, 64), np.float32)), embedder)
