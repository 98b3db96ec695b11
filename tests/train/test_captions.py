"""Templates and positives: what may be said of an image, and of which others it is true too."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from indexer.corpus.records import Record
from indexer.errors import CallError
from indexer.types import Document, Rejected
from pipelines.train.common.captions import CaptionedImages, Templates, square


def record(name: str, **fields: object) -> Record:
    return Record(Document(name, name, Image.new("RGB", (8, 6), "red"), fields), "stamp")


def test_a_template_is_filled_with_each_element_of_a_list_and_skipped_where_a_field_is_missing() -> None:
    templates = Templates({"{text}": 1, "{text}, {tags}": 1, "by {maker}": 1}, {"tags": {"x": ["ex", "cross"]}})
    assert templates.captions({"text": "cat", "tags": ["x", "y"], "maker": None}) == {
        "{text}": ["cat"],
        "{text}, {tags}": ["cat, ex", "cat, cross", "cat, y"],
    }


def test_a_caption_shared_by_two_records_is_positive_for_both() -> None:
    data = CaptionedImages(
        [record("cat", tags=["animal"]), record("dog", tags=["animal"]), record("car", tags=["thing"])],
        8,
        Templates({"{tags}": 1.0}),
        None,
    )
    rows = np.array([0, 1, 2])
    drawn = data.draw(rows, np.random.default_rng(0))
    assert [data.texts[each] for each in drawn] == ["animal", "animal", "thing"]
    assert data.positives(rows, drawn).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_parts_of_the_split_are_kept_apart() -> None:
    data = CaptionedImages(
        [record("a", split="train"), record("b", split="test")], 8, Templates({"{text}": 1.0}), "split"
    )
    assert data.rows("train").tolist() == [0]
    assert data.rows(None).tolist() == [0, 1]
    assert [data.texts[each] for each in data.captions_of(data.rows("test"))] == ["b"]


def test_what_cannot_be_trained_on_is_rejected_with_its_reason() -> None:
    bad = Record(Document("broken", "broken", b"no picture"), "")
    silent = Record(Document("silent", None, Image.new("RGB", (4, 4))), "")
    data = CaptionedImages(
        [record("a"), bad, silent, Rejected("x", "why", "because")], 8, Templates({"{text}": 1.0}), None
    )
    assert len(data) == 1
    assert [each.reason for each in data.rejected] == ["not-an-image", "no-pair", "why"]


def test_a_corpus_without_pairs_is_refused() -> None:
    with pytest.raises(CallError, match="no document with both"):
        CaptionedImages([], 8, Templates({"{text}": 1.0}), None)


def test_the_whole_picture_lies_in_a_white_square() -> None:
    pixels = square(Image.new("RGB", (16, 8), "black"), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels[4].max() == 0
    assert pixels[0].min() == 255
