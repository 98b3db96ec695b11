"""What a collection answers, as plain values to compare."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from indexer.embed.fake import FakeEmbedder
from indexer.types import Item

DIM = 16


def asked(*texts):
    """Query vectors of texts, (n, 16)."""
    return FakeEmbedder(DIM).encode_query([Item(text=text) for text in texts])


def found(source, text, k=10, **options):
    """The ids of the documents nearest to a text, best first; of a collection or a snapshot."""
    snapshot = source.snapshot() if hasattr(source, "snapshot") else source
    ids = snapshot.search(asked(text), k, **options).ids[0]
    return [document.id for document in snapshot.documents(ids[ids >= 0])]


def contents(source):
    """All that is stored: {id: (text, fields, modality, vector)}."""
    snapshot = source.snapshot() if hasattr(source, "snapshot") else source
    ids, _ = snapshot.scan(np.zeros((1, snapshot.space.dim), np.float32))
    documents, vectors = snapshot.documents(ids), snapshot.vectors(ids)
    told = {
        each.id: (each.text, each.fields, each.modality.value, tuple(vector.tolist()))
        for each, vector in zip(documents, vectors, strict=True)
    }
    assert len(told) == len(documents) == len(snapshot)
    return told


def png(*colour, size=(4, 4)):
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()
