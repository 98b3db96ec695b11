"""Old names still work, with a warning."""

from __future__ import annotations

import numpy as np
import pytest
from fake_generator import FakeGenerator

import indexer.types
import retrieval
from indexer import Collection, Document
from indexer.errors import CallError
from retrieval import CaptionRewriter, GenerateOptions, PseudoTargetProvider, Query, Retriever
from retrieval.providers.generation.protocol import PseudoTargetRequest, generate_each


@pytest.fixture
def shop(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as opened:
        opened.add([Document("lamp", text="a red lamp")])
        yield opened


@pytest.mark.parametrize(
    ("old", "new"),
    [("Studio", "PseudoTargetProvider"), ("Scribe", "CaptionRewriter"), ("DrawOptions", "GenerateOptions")],
)
def test_an_old_public_name_is_the_new_one(old, new):
    with pytest.warns(DeprecationWarning, match=f"retrieval.{old} is now retrieval.{new}") as warned:
        found = getattr(retrieval, old)
    assert found is getattr(retrieval, new)
    assert warned[0].filename == __file__


def test_the_old_enum_is_the_new_one():
    with pytest.warns(DeprecationWarning, match="Centre is now"):
        assert indexer.types.Centre is indexer.types.Center


def test_old_arguments_do_what_the_new_ones_do(shop, tmp_path):
    given = {"studio": PseudoTargetProvider(cache=tmp_path), "scribe": CaptionRewriter(cache=tmp_path), "centre": "off"}
    for old, value in given.items():
        with pytest.warns(DeprecationWarning, match=rf"Retriever\({old}=\) is now") as warned:
            retriever = Retriever(shop, "text", **{old: value})
        assert warned[0].filename == __file__
        assert retriever.search(Query(text="a red lamp")).hits[0].id == "lamp"
    with pytest.warns(DeprecationWarning, match="centre"), pytest.raises(CallError, match="is not known"):
        Retriever(shop, "text", centre="of")


def test_an_argument_is_given_once_and_by_a_name_that_there_is(shop):
    with pytest.raises(CallError, match="takes center or centre"):
        Retriever(shop, center="on", centre="on")
    with pytest.raises(TypeError, match="unexpected keyword argument 'middle'"):
        Retriever(shop, middle="on")


def test_old_methods_do_what_the_new_ones_do(tmp_path):
    with pytest.warns(DeprecationWarning, match="rewrite"):
        assert CaptionRewriter(cache=tmp_path).write([]) == []
    with pytest.warns(DeprecationWarning, match="generate"):
        assert PseudoTargetProvider(generator=FakeGenerator("fake:16"), cache=tmp_path).draw(None, [], []) == []


def test_a_generator_that_draws_still_generates(tmp_path):
    class Former(FakeGenerator):
        def __init__(self):
            super().__init__("fake:16")
            self.draw = super().generate

        def __getattribute__(self, name):
            if name == "generate":
                raise AttributeError(name)
            return super().__getattribute__(name)

    request = PseudoTargetRequest("red", (np.ones(16, np.float32),))
    with pytest.warns(DeprecationWarning, match="Former.draw is now Generator.generate"):
        [made] = generate_each(Former(), [request], GenerateOptions(images=2))
    assert len(made.images) == 2
