"""The public names of the package are pinned, importable, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import indexer

NAMES = [
    "Added", "Collection", "Columns", "Device", "Document", "Embedder", "Filled", "IndexKind", "IndexSettings", "Item", "Modality",
    "Parts", "Progress", "Rejected", "Snapshot", "SpaceStatus", "StoredDocument", "Summary", "UnderdrawingError", "index_corpus",
    "load_embedder", "open_corpus",
]  # fmt: skip

HEAVY = [
    "PIL", "alembic", "faiss", "numpy", "open_clip", "pandas", "psycopg", "pyarrow", "safetensors", "sqlalchemy", "torch",
    "torchvision", "transformers",
]  # fmt: skip


def loaded_by(code):
    """Which of the heavy packages a new interpreter has imported after this."""
    told = f"{code}; import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.split()


def test_the_names_are_pinned():
    assert indexer.__all__ == sorted(indexer.__all__) == NAMES
    assert dir(indexer) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_there_and_says_what_it_is(name):
    assert getattr(indexer, name).__name__ == name
    assert getattr(indexer, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'indexer' has no attribute 'Index'"):
        _ = indexer.Index


def test_the_import_costs_nothing():
    assert loaded_by("import indexer") == []


def test_a_document_needs_no_model_and_no_database():
    assert loaded_by("from indexer import Document, Item, UnderdrawingError; Document('a', image='a.png')") == []


def test_the_store_needs_no_model_and_no_pictures():
    heavy = loaded_by("from indexer import Collection, Snapshot, index_corpus")
    assert not {"torch", "torchvision", "open_clip", "transformers", "faiss", "PIL", "psycopg", "pandas"} & set(heavy)
