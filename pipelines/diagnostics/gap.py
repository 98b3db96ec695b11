"""The modality gap of a collection, before and after centering: how far apart its kinds of documents lie.

Three measures (Liang et al., "Mind the Gap", NeurIPS 2022, for the first two):

* *distance* of two modalities' centroids, of vectors of unit length: 0 to 2;
* *separability*: how many unseen documents a linear probe assigns to the right one of two modalities, balanced; 0.5 is
  chance. The probe is a ridge regression on half of the documents, measured on the other half;
* *share at k*: of the documents nearest to documents of one modality, each modality's part over its part of the
  collection; 1 is fair. The documents themselves ask, so that no model is needed.

Documents are a sample, evenly spread over a modality's ids: the same for the same generation.

What this module does not know: how anything is centered, how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import CallError, MissingExtraError
from indexer.types import Center, Ids, Modality, Vectors

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

SAMPLE = 1000
"""Documents of a modality that distances and probes are measured on."""
ASKING = 200
"""The most documents of a modality whose neighbors are found."""
RIDGE = 1e-2
"""What the probe's weights cost, times the number of its examples and the mean variance of a coordinate."""
LEAST = 10
"""Documents of a modality below which nothing is measured on it."""


@dataclass(frozen=True)
class Side:
    """The measures, before centering or after.

    Attributes:
        distance: By pair of modalities, such as `text / image`.
        separability: The same.
        share: By the modality that asks, then by the modality found.
    """

    distance: Mapping[str, float]
    separability: Mapping[str, float]
    share: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Gap:
    """What was measured.

    Attributes:
        documents: How many live of each modality.
        k: How deep shares look.
        auto: Whether a search that is left to decide takes the gap out.
        why: The rule by which it decides, with the numbers.
        before: Of vectors as they are stored.
        after: Of vectors as a centered search compares them.
    """

    documents: Mapping[str, int]
    k: int
    auto: bool
    why: str
    before: Side
    after: Side


def measure_gap(snapshot: Snapshot, k: int = 10) -> Gap:
    """Measure a collection.

    Raises:
        CallError: k is below 1, or fewer than two modalities have documents enough.
    """
    if k < 1:
        raise CallError(f"k is {k}; a share is of 1 neighbor at least.")
    from indexer.vectors.modality_gap import mixture, settled

    samples = _samples(snapshot)
    centered = snapshot.centered(Center.ON)
    return Gap(
        documents={modality.value: count for modality, count in snapshot.living.items()},
        k=k,
        auto=settled(Center.AUTO, snapshot.space, lambda: snapshot.living) is Center.ON,
        why=mixture(snapshot.living),
        before=_side(snapshot, samples, snapshot.living, k),
        after=_side(centered, samples, snapshot.living, k),
    )


def _samples(snapshot: Snapshot) -> dict[Modality, Ids]:
    chosen = {modality: count for modality, count in snapshot.living.items() if count >= LEAST}
    if len(chosen) < 2:
        held = ", ".join(f"{count:,} {modality.value}" for modality, count in snapshot.living.items())
        raise CallError(
            f"A gap is between two modalities of {LEAST} documents or more; the collection holds {held or 'nothing'}."
        )
    samples = {}
    for modality, count in chosen.items():
        own = snapshot.eligible(modalities=[modality])
        assert own is not None
        samples[modality] = own[np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64)]
    return samples


def _side(view: Snapshot, samples: Mapping[Modality, Ids], living: Mapping[Modality, int], k: int) -> Side:
    rows = {modality: view.vectors(ids) for modality, ids in samples.items()}
    pairs = {f"{a.value} / {b.value}": (rows[a], rows[b]) for a, b in combinations(samples, 2)}
    return Side(
        distance={name: float(np.linalg.norm(a.mean(0) - b.mean(0))) for name, (a, b) in pairs.items()},
        separability={name: probe_accuracy(a, b) for name, (a, b) in pairs.items()},
        share={modality.value: _share(view, samples[modality], rows[modality], living, k) for modality in samples},
    )


def probe_accuracy(first: Vectors, second: Vectors) -> float:
    """How many of the documents that a linear probe was not fitted on it tells apart, balanced between the two.

    Args:
        first: (n, dim) float32, at least 2 rows.
        second: (m, dim), the same.
    """
    halves = [(each[::2].astype(np.float64), each[1::2].astype(np.float64)) for each in (first, second)]
    examples = np.concatenate([half[0] for half in halves])
    # A class counts the same however many documents it has.
    weights = np.concatenate([np.full(len(half[0]), 1 / len(half[0])) for half in halves])
    sides = np.concatenate([np.full(len(half[0]), sign) for half, sign in zip(halves, (1.0, -1.0), strict=True)])
    middle = weights @ examples / 2
    moved = examples - middle
    spread = moved.T @ (moved * weights[:, None])
    cost = RIDGE * np.trace(spread) / len(spread) + np.finfo(np.float64).tiny
    direction = np.linalg.solve(spread + cost * np.eye(len(spread)), moved.T @ (weights * sides))
    right = [
        np.mean(np.sign((half[1] - middle) @ direction) == sign) for half, sign in zip(halves, (1, -1), strict=True)
    ]
    return float(np.mean(right))


def _share(view: Snapshot, ids: Ids, rows: Vectors, living: Mapping[Modality, int], k: int) -> dict[str, float]:
    chosen = np.linspace(0, len(ids) - 1, min(len(ids), ASKING)).astype(np.int64)
    near = view.search(rows[chosen], k + 1).ids
    # A document is near itself; that says nothing.
    others = near[(near >= 0) & (near != ids[chosen][:, None])]
    found = np.bincount(view.modality_codes[others], minlength=len(Modality))
    total = sum(living.values())
    return {
        modality.value: float(found[code] / len(others) / (living[modality] / total))
        for code, modality in enumerate(Modality)
        if modality in living
    }


def plot_gap(snapshot: Snapshot, gap: Gap, path: Path) -> None:
    """Draw both sides: the documents along the two directions of most variance, and the shares.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "train", "Plotting a gap") from None
    samples = _samples(snapshot)
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    views: list[tuple[str, Snapshot, Side]] = [
        ("as stored", snapshot, gap.before),
        ("centered", snapshot.centered(Center.ON), gap.after),
    ]
    for column, (title, view, side) in enumerate(views):
        rows = {modality: view.vectors(ids) for modality, ids in samples.items()}
        together = np.concatenate(list(rows.values())).astype(np.float64)
        middle = together.mean(0)
        axes = np.linalg.svd(together - middle, full_matrices=False)[2][:2]
        for modality, own in rows.items():
            panels[0][column].scatter(*((own - middle) @ axes.T).T, s=4, alpha=0.5, label=modality.value)
        panels[0][column].set_title(f"{title}: the two directions of most variance", fontsize=10)
        panels[0][column].set_aspect("equal", adjustable="datalim")
        panels[0][column].legend(fontsize=8, frameon=False)
        width = 0.8 / len(side.share)
        for place, (asking, found) in enumerate(side.share.items()):
            at = np.arange(len(found)) + place * width
            panels[1][column].bar(at, list(found.values()), width, label=f"asked by {asking}")
        panels[1][column].axhline(1, color="grey", linewidth=0.8)
        panels[1][column].set_xticks(np.arange(len(gap.documents)) + 0.4 - width / 2, list(found))
        panels[1][column].set_title(f"{title}: share of the first {gap.k} over share of the collection", fontsize=10)
        panels[1][column].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
