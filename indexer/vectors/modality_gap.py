"""The modality gap: the mean vector of each modality, shrunk where few vectors were seen.

Vectors of texts lie around one point of the sphere, vectors of images around another (the modality gap: Liang et al.,
"Mind the Gap", NeurIPS 2022, arXiv:2203.02053). A text is therefore nearer to any text than to the right image, and
where documents of several modalities are searched together, those of the query's own modality come first. The remedy
subtracts the mean of each (role, modality) and scales to unit length again (GR-CLIP, arXiv:2507.19054): a document x of
modality m scores against a query vector p

    s(p, x) = p . (x - mu_m) / |x - mu_m|

The mean of few vectors is noisy, so it is shrunk towards the mean of all in proportion to its noise: with S the
variance within modalities, pooled, the mean of n vectors has the variance v = S / n, its squared distance from the mean
of all an excess d over what noise alone makes, and its share of noise is v / (v + d) (an empirical Bayes estimate;
James and Stein, 1961). A thousand texts keep their own mean. With fewer than `FEW` documents, a modality has no mean of
its own: subtracting it would remove their content.

*When `auto` corrects it.* Only if texts and images are both numerous. In folders of photographs of which some have a
caption, the correction put the photograph that a caption names at rank 1 less often (0.990 to 0.965 of 200 captions,
LOG.md), and such folders hold no texts that it could help.

What this module does not know: where vectors are stored, and how they are searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.types import Center, Mean, Modality, Role

if TYPE_CHECKING:
    from indexer.metadata.catalog import Space

Wide = npt.NDArray[np.float64]

FEW = 20
"""With fewer documents, a modality has no mean of its own: it would be the documents themselves."""
LEAST, LEAST_SHARE = 50, 0.05
"""How many documents with only a text, and how many with an image, make a collection mixed, and their least shares."""


@dataclass(frozen=True)
class Shrunk:
    """A mean, shrunk towards the mean of all by its share of noise.

    Attributes:
        vector: (dim,) float64.
        noise: 0 for an exact mean, up to 1 for one that is all noise.
    """

    vector: Wide
    noise: float


def shrunk_means(means: Mapping[Modality, Mean]) -> dict[Modality, Shrunk]:
    """The means of one role, shrunk as described above; modalities without vectors are left out."""
    known = {modality: mean for modality, mean in means.items() if mean.count}
    if not known:
        return {}
    vectors = {modality: mean.vector.astype(np.float64) for modality, mean in known.items()}
    total = sum(mean.count for mean in known.values())
    everything: Wide = np.sum([mean.count * vectors[each] for each, mean in known.items()], axis=0) / total
    # Of unit vectors with mean mu the variance about it is 1 - |mu|^2.
    within = sum(mean.count * (1 - float(vectors[each] @ vectors[each])) for each, mean in known.items())
    spare = total - len(known)
    variance = max(within / spare, 0.0) if spare else 1.0
    shrunk = {}
    for modality, mean in known.items():
        noise = variance / mean.count
        apart = vectors[modality] - everything
        excess = max(float(apart @ apart) - noise * (1 - mean.count / total), 0.0)
        share = noise / (noise + excess) if noise + excess > 0 else 0.0
        if mean.count < FEW and len(known) > 1:
            share = 1.0
        shrunk[modality] = Shrunk((1 - share) * vectors[modality] + share * everything, share)
    return shrunk


def document_means(space: Space) -> dict[Modality, Shrunk]:
    """The shrunk means of a space's documents."""
    return shrunk_means({modality: mean for (role, modality), mean in space.means.items() if role is Role.DOCUMENT})


def query_mean(space: Space, modality: Modality) -> Wide:
    """The mean of a modality's queries: (dim,) float64.

    It is the space's stored mean of such queries, else that of its documents of the modality, else zero.
    """
    own = space.means.get((Role.QUERY, modality))
    if own is not None and own.count:
        return own.vector.astype(np.float64)
    documents = document_means(space)
    return documents[modality].vector if modality in documents else np.zeros(space.dim)


def clearly_mixed(living: Mapping[Modality, int]) -> bool:
    """Whether documents with only a text and documents with an image are both numerous."""
    texts = living.get(Modality.TEXT, 0)
    images = sum(living.values()) - texts
    return min(texts, images) >= max(LEAST, LEAST_SHARE * (texts + images))


def mixture(living: Mapping[Modality, int]) -> str:
    """A sentence on whether a collection is clearly mixed."""
    texts = living.get(Modality.TEXT, 0)
    images = sum(living.values()) - texts
    is_so = "is" if clearly_mixed(living) else "is not"
    return (
        f"{texts:,} documents are texts and {images:,} have an image: the collection {is_so} clearly mixed, "
        f"which needs {LEAST} and {LEAST_SHARE:.0%} of each."
    )


def lie_apart(means: Mapping[Modality, Shrunk], living: Mapping[Modality, int]) -> bool:
    """Whether there are living texts and images, and the mean of either is more signal than noise."""
    return clearly_mixed(living) and any(means[each].noise < 0.5 for each in living if each in means)


def may_mix(space: Space) -> bool:
    """Whether enough texts and images were ever indexed; a cheap first test."""
    counts = {modality: mean.count for (role, modality), mean in space.means.items() if role is Role.DOCUMENT}
    texts = counts.pop(Modality.TEXT, 0)
    return min(texts, sum(counts.values())) >= LEAST


def settled(center: Center, space: Space, living: Callable[[], Mapping[Modality, int]]) -> Center:
    """Turn `auto` into `on` or `off`; other values stay.

    Args:
        center: What was asked for.
        space: The space whose means decide.
        living: Counts the living documents by modality; called only if needed.
    """
    if center is not Center.AUTO:
        return center
    return Center.ON if may_mix(space) and lie_apart(document_means(space), living()) else Center.OFF
