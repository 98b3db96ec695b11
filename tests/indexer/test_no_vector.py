"""An item whose vector has no direction (zero or not finite, as in half precision) is the only one rejected."""

from __future__ import annotations

import json

import numpy as np
import pytest
from answers import found

from indexer import Collection, Document, index_corpus
from indexer.embed.fake import FakeEmbedder
from indexer.errors import QueryError, RejectedError
from indexer.types import Role
from retrieval import Query, Retriever

WRONG = {"zeros": 0.0, "nan": np.nan, "infinite": np.inf, "vanishing": 1e-38}


class Overflowing(FakeEmbedder):
    """Gives rows of one value for whatever has an odd first number, on one side of the search."""

    def __init__(self, value, role, every=False):
        super().__init__(16)
        self.value, self.role, self.every = value, role, every

    def forward(self, prepared, role, instruction=None):
        vectors = super().forward(prepared, role).copy()
        if role is self.role and len(vectors):
            bad = np.arange(len(vectors)) % 2 == 0 if not self.every else np.ones(len(vectors), np.bool_)
            vectors[bad] = self.value
        return vectors


def some(count=4):
    return [Document(f"d{number}", text=f"word{number}") for number in range(count)]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_document_without_a_vector_costs_itself(tmp_path, wrong):
    with Collection.open(tmp_path / "shop", Overflowing(WRONG[wrong], Role.DOCUMENT)) as shop:
        added = shop.add(some())
        assert (added.added, [each.uri for each in added.rejected]) == (2, ["d0", "d2"])
        assert {each.reason for each in added.rejected} == {"no-vector"}
        assert "has length" in added.rejected[0].detail
        assert sorted(found(shop, "word1")) == ["d1", "d3"]
        assert shop.check().clean


def test_if_none_has_one_it_is_said(tmp_path):
    with Collection.open(tmp_path / "shop", Overflowing(np.nan, Role.DOCUMENT, every=True)) as shop:
        with pytest.raises(RejectedError, match="length nan"):
            shop.add(some())
        assert shop.add(some(), skip_rejected=True).added == 0


@pytest.mark.parametrize("wrong", WRONG)
def test_so_it_is_in_a_batch_job(tmp_path, wrong):
    source = tmp_path / "words.jsonl"
    lines = [{"id": f"d{number}", "text": f"word{number // 2}"} for number in range(8)]  # each text twice
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Collection.open(tmp_path / "shop", Overflowing(WRONG[wrong], Role.DOCUMENT)) as shop:
        summary = index_corpus(source, shop, shard_size=8)
        assert (summary.added, summary.rejected, summary.reused) == (4, 4, 2)
        assert sorted(found(shop, "word1")) == ["d2", "d3", "d6", "d7"]
        assert shop.check().clean
        assert index_corpus(source, shop, shard_size=8).rejected == 4


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_queries_without_a_vector_leave_the_collection_whole(tmp_path, wrong, every):
    with Collection.open(tmp_path / "shop", Overflowing(WRONG[wrong], Role.QUERY, every)) as shop:
        shop.add(some())
        with pytest.raises(QueryError, match="not a finite number"):
            Retriever(shop, "text").search(Query("word1"))
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        assert [hit.id for hit in Retriever(shop, "text").search(Query("word1"), k=1)] == ["d1"]
        assert shop.add(some(5)).added == 1
