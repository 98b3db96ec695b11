"""Means of modalities by hand: shrinkage, fallbacks, and what counts as clearly mixed."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.metadata.catalog import Space
from indexer.types import Mean, Modality, Parts, Role
from indexer.vectors.modality_gap import LEAST, clearly_mixed, may_mix, mixture, query_mean, shrunk_means

TEXT, IMAGE = Modality.TEXT, Modality.IMAGE


def space(means):
    return Space(
        id=1, digest="d", model="fake:2", dim=2, parts=Parts.AUTO, fingerprint={}, means=means
    )  # fmt: skip


def mean(count, *vector):
    return Mean(count, np.array(vector, np.float32))


def test_a_mean_is_shrunk_by_its_share_of_noise():
    shrunk = shrunk_means({TEXT: mean(30, 0.6, 0.0), IMAGE: mean(60, 0.0, 0.8)})
    everything = np.array([0.2, 1.6 / 3])
    variance = (30 * 0.64 + 60 * 0.36) / (90 - 2)
    for each, own, count in ((TEXT, (0.6, 0), 30), (IMAGE, (0, 0.8), 60)):
        noise = variance / count
        excess = float(np.sum((own - everything) ** 2)) - noise * (1 - count / 90)
        share = noise / (noise + excess)
        assert shrunk[each].noise == pytest.approx(share, rel=1e-5)
        np.testing.assert_allclose(shrunk[each].vector, (1 - share) * np.array(own) + share * everything, rtol=1e-5)


def test_equal_documents_have_a_mean_without_noise():
    shrunk = shrunk_means({TEXT: mean(30, 1.0, 0.0), IMAGE: mean(30, 1.0, 0.0)})
    assert [each.noise for each in shrunk.values()] == [0, 0]


def test_queries_have_their_own_mean_or_that_of_documents_or_none():
    asked, stored = mean(9, 0.1, 0.2), mean(90, 0.3, 0.4)
    both = space({(Role.QUERY, TEXT): asked, (Role.DOCUMENT, TEXT): stored})
    np.testing.assert_array_equal(query_mean(both, TEXT), asked.vector.astype(np.float64))
    np.testing.assert_allclose(query_mean(space({(Role.DOCUMENT, TEXT): stored}), TEXT), [0.3, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(query_mean(both, IMAGE), [0, 0])
    assert query_mean(both, TEXT).dtype == np.float64


@pytest.mark.parametrize(
    ("texts", "images", "is_so"),
    [
        (None, 100, False),
        (LEAST - 1, 100, False),
        (LEAST, 100, True),
        (LEAST, 19 * LEAST, True),
        (LEAST, 20 * LEAST, False),
    ],
)
def test_what_is_clearly_mixed(texts, images, is_so):
    living = {IMAGE: images} if texts is None else {TEXT: texts, IMAGE: images}
    assert clearly_mixed(living) is is_so
    told = f"{texts or 0:,} documents are texts and {images:,} have an image: the collection is "
    assert mixture(living).startswith(told + ("clearly" if is_so else "not clearly"))


def test_what_may_mix_has_as_many_texts_and_images_as_are_asked_for():
    for texts, images, may in ((LEAST, LEAST, True), (LEAST - 1, LEAST, False), (LEAST, LEAST - 1, False)):
        means = {(Role.DOCUMENT, TEXT): mean(texts, 1, 0), (Role.DOCUMENT, IMAGE): mean(images, 0, 1)}
        assert may_mix(space(means)) is may
    assert may_mix(space({(Role.DOCUMENT, IMAGE): mean(500, 0, 1)})) is False
    assert may_mix(space({(Role.QUERY, TEXT): mean(500, 0, 1), (Role.DOCUMENT, IMAGE): mean(500, 0, 1)})) is False
