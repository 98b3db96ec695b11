"""A view with the modality gap corrected, through which mixed collections are searched.

It wraps another view and subtracts each modality's mean. Nothing stored changes. With p a query
vector, x a document of modality m, mu its mean, b = x . mu:

    s(p, x) = p . (x - mu) / |x - mu|  =  (p . x - p . mu) / n(b),    n(b) = sqrt(1 + |mu|^2 - 2 b)

so a scan for p and the three means mu_text, mu_image and mu_fused gives all the products; the means are the only added
cost.

*Spread.* Once the means are equal, the scores of one modality still vary more than another's: text vectors separate
texts more sharply than images, and the modality with the wider spread takes all the top ranks. So, except with `means`,
the widest modality, nearly always the query's own, keeps its scores, and those of modality m are raised:

    h(s) = f s / (1 + (f - 1) |s|),    f = sigma_max / sigma_m

sigma_m^4 is the mean of s(p, .)^4 over up to `SAMPLE` documents of the modality, the same ones for every query of a
generation. The share `TRIMMED` of the largest scores does not count, since the item searched for says nothing about
the spread; with few documents, the estimate is shrunk towards all modalities' mean. (The fourth power, because ranking
depends on the tails, which are heavier for the query's own modality.) h is f s for small scores and maps 1 and -1 to
themselves, so nothing rises above an identical item. With plain multiplication, documents of other modalities ranked
above it for 29 of 70 images.

*Through an approximate index*, modalities are searched one by one. A document of one modality has a score of at least t
if p . x - p . mu >= t n(b). n is concave, with slope -beta, beta = 1 / sqrt(1 - |mu|^2), at
b = |mu|^2, the mean of b. So the rows nearest to p + t beta mu are the best ones, up to the curvature of n. They are
scored exactly, and if a row beyond the last one found could still reach t with a b up to four standard deviations from
the mean, the search goes deeper. t starts at 0 and is then the score that the last round reached.

Answers are exact if the other view scans, and otherwise as good as its index.

What this module does not know: models, methods, how means are estimated (`modality_gap.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.types import MODALITIES, Center, Ids, Scores, Vectors
from indexer.vectors.exact import no_neighbors, rounding_error
from indexer.vectors.modality_gap import Wide
from indexer.vectors.protocol import NO_ID, NOTHING, Neighbors, Plan, VectorView

SAMPLE = 512
"""Documents of a modality from which the spread of its scores is estimated."""
PRIOR = 16
"""The weight of the spread of all modalities, in documents, when a modality's own is estimated."""
FEW_ROWS = 10_000
"""Up to this many eligible vectors are scored one by one, whatever the index."""
TRIMMED = 0.01
"""The share of a sample's largest scores that is left out of its spread; at least one score."""
SCORES_AT_ONCE = 1 << 24
ROWS_AT_ONCE = 4096
SMALLEST = 1e-9
"""A vector this close to its mean has no direction: it scores 0."""
SPARE = 32
DEEPER = 4
DEEPEST = 4096
"""Candidates beyond twice k in the first round, the factor for each further round, and the most."""
DEVIATIONS = 4.0


class CenteredView:
    """A `VectorView` with the modality gap corrected.

    Args:
        plain: The view of the stored vectors.
        center: `on` or `means`.
        means: What is subtracted, (modalities, dim) float64 in the order of `MODALITIES`.
        codes: The modality of each vector, by id, as its position in `MODALITIES`.
        living: The ids of all living documents, ascending.
    """

    def __init__(
        self,
        plain: VectorView,
        center: Center,
        means: Wide,
        codes: npt.NDArray[np.uint8],
        living: Ids,
    ) -> None:
        self._plain, self._center, self._codes = plain, center, codes
        self._means, self._squares = means, np.einsum("ij,ij->i", means, means)
        of_living = codes[living]
        owned = {code: living[of_living == code] for code in range(len(MODALITIES))}
        self._own: dict[int, Ids] = {code: own for code, own in owned.items() if len(own)}
        """The ids of living documents, for each modality that has any."""
        self._kinds = list(self._own)

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return self._plain.size

    @property
    def scans(self) -> bool:
        """See `VectorView`; the plain view answers."""
        return self._plain.scans

    @property
    def reason(self) -> str:
        """See `VectorView`; the plain view answers."""
        return self._plain.reason

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `VectorView`; the plain view answers."""
        return self._plain.facts

    @property
    def outdated(self) -> bool:
        """See `VectorView`; the plain view answers."""
        return self._plain.outdated

    @property
    def notes(self) -> tuple[str, ...]:
        """A note on how these scores are made, and the plain view's notes."""
        spread = ", and the spreads of the modalities' scores are equalized" if self._center is Center.ON else ""
        note = f"The collection mixes modalities: each one's mean is subtracted from its vectors{spread}."
        return (note, *self._plain.notes)

    def all_ids(self) -> Ids:
        """Every id, ascending: (size,) int64."""
        return self._plain.all_ids()

    def held(self, ids: Ids) -> Ids:
        """The given ids that it holds, in the given order."""
        return self._plain.held(ids)

    def fetch(self, ids: Ids) -> Vectors:
        """Vectors less their modality's mean, scaled to unit length: (len(ids), dim) float32."""
        return self._rows(ids).astype(np.float32)

    def score(self, queries: Vectors, ids: Ids) -> Scores:
        """The scores of given ids, (n, len(ids)) float32. A document's score does not depend on how it was found."""
        out = np.empty((len(queries), len(ids)), np.float32)
        wide = queries.astype(np.float64)
        factors = self._factors(wide)
        for start in range(0, len(ids), ROWS_AT_ONCE):
            chunk = ids[start : start + ROWS_AT_ONCE]
            rows, codes = self._rows(chunk), self._codes[chunk]
            for place, query in enumerate(wide):
                # Not BLAS: einsum sums each row in the same order wherever it lies, so that equal rows tie.
                cosines = np.einsum("ij,j->i", rows, query)
                out[place, start : start + len(chunk)] = lifted(cosines, factors[place, codes])
        return out

    def scan(self, queries: Vectors, allowed: Ids | None = None) -> tuple[Ids, Scores]:
        """As `VectorView.scan`: float32 sums, whose last digits may differ from those of `score`."""
        ids, scores, *_ = self._scan(queries, allowed)
        return ids, scores

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None, hidden: Ids = NOTHING) -> Neighbors:
        """As `VectorView.search`; exact if the plain view scans, otherwise see the module's docstring."""
        if len(hidden):
            allowed = np.setdiff1d(self.all_ids() if allowed is None else allowed, hidden, assume_unique=True)
        if allowed is not None and len(allowed) <= FEW_ROWS:
            every = np.broadcast_to(allowed, (len(queries), len(allowed)))
            return _best(every, self.score(queries, allowed), k, (Plan.PICK,))
        found = [no_neighbors(0, k)]
        step = max(SCORES_AT_ONCE // max(self.size, 1), 1)
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            found.append((self._by_scan if self.scans else self._by_index)(part, k, allowed))
        unseen = [each.unseen for each in found if each.unseen is not None]
        return Neighbors(
            np.concatenate([each.ids for each in found]),
            np.concatenate([each.scores for each in found]),
            tuple(dict.fromkeys(plan for each in found[1:] for plan in each.plans)) or (Plan.SCAN,),
            np.concatenate(unseen) if unseen else None,
        )

    def _by_scan(self, vectors: Vectors, k: int, eligible: Ids | None) -> Neighbors:
        """Keep every row that can be among the k best, given how far float32 may round; score those exactly."""
        ids, scores, nearest, steeper = self._scan(vectors, eligible)
        found = no_neighbors(len(vectors), k)
        if not len(ids):
            return found
        # The derivative of (p . x - c) / n with respect to its two products, each within the error.
        steepest = (1 + math.sqrt(self._squares.max()) / nearest) / nearest
        slack = 2 * steepest * steeper * (rounding_error(vectors) + 1e-6)
        last = max(len(ids) - k, 0)
        for place, row in enumerate(scores):
            kept = ids[row >= np.partition(row, last)[last] - slack[place]]
            best = _best(kept[None], self.score(vectors[place : place + 1], kept), k)
            found.ids[place], found.scores[place] = best.ids[0], best.scores[0]
        return found

    def _scan(self, vectors: Vectors, eligible: Ids | None) -> tuple[Ids, Scores, float, Scores]:
        """Ids, float32 scores, the smallest distance of a vector from its mean, each query's largest factor."""
        ids, products = self._plain.scan(np.concatenate([vectors, self._means.astype(np.float32)]), eligible)
        wide = vectors.astype(np.float64)
        codes = self._codes[ids].astype(np.int64)  # small ones would wrap around below
        towards = products[len(vectors) + codes, np.arange(len(ids))]
        lengths = np.sqrt(np.maximum(1 + self._squares[codes] - 2 * towards.astype(np.float64), SMALLEST))
        offsets = np.asarray(wide @ self._means.T, np.float32)
        cosines = (products[: len(vectors)] - offsets[:, codes]) / np.asarray(lengths, np.float32)
        factors = np.asarray(self._factors(wide), np.float32)
        return ids, lifted(cosines, factors[:, codes]), float(lengths.min(initial=1.0)), factors.max(axis=1)

    def _by_index(self, vectors: Vectors, k: int, eligible: Ids | None) -> Neighbors:
        """The best of each modality, merged."""
        found = [no_neighbors(len(vectors), k)]
        for code in self._kinds:
            own = self._own[code] if eligible is None else eligible[self._codes[eligible] == code]
            if len(own) <= FEW_ROWS:
                scores = self.score(vectors, own)
                found.append(_best(np.broadcast_to(own, scores.shape), scores, k, (Plan.PICK,)))
            else:
                found.append(self._probe(vectors, k, code, own))
        merged = Neighbors.merged(found, k)
        plans = tuple(dict.fromkeys(plan for each in found[1:] for plan in each.plans))
        return replace(merged, plans=plans)

    def _probe(self, vectors: Vectors, k: int, code: int, own: Ids) -> Neighbors:
        """The k best documents of one modality among the eligible ids `own`; see the module's docstring."""
        mean, wide = self._means[code], vectors.astype(np.float64)
        factors, offsets = self._factors(wide)[:, code], wide @ mean
        slope = 1 / math.sqrt(max(1 - float(self._squares[code]), SMALLEST))
        places = self._ranges[code]
        curve = np.sqrt(np.maximum(1 + self._squares[code] - 2 * places, 0))
        found, reach = no_neighbors(len(vectors), k), np.zeros(len(vectors))
        todo, depth = np.arange(len(vectors)), min(2 * k + SPARE, len(own))
        while len(todo):
            used = reach[todo] * slope
            near = self._plain.search(np.asarray(wide[todo] + used[:, None] * mean, np.float32), depth, own)
            for place, ids in zip(todo, near.ids, strict=True):
                ids = np.union1d(ids, found.ids[place])
                ids = ids[ids != NO_ID]
                best = _best(ids[None], self.score(vectors[place : place + 1], ids), k)
                found.ids[place], found.scores[place] = best.ids[0], best.scores[0]
            last = found.scores[todo, min(k, len(own)) - 1]
            reach[todo] = lifted(np.where(np.isfinite(last), last, -1), 1 / factors[todo])
            # The score that a row beyond the last one needs, at the most favorable b, to be among the k best.
            needed = offsets[todo] + (reach[todo, None] * curve + used[:, None] * places).min(axis=1)
            complete = (near.scores[:, -1] < needed) | (depth >= min(len(own), DEEPEST))
            todo, depth = todo[~complete], min(DEEPER * depth, len(own))
        # An index may have missed any row.
        return Neighbors(found.ids, found.scores, near.plans, np.full(len(vectors), np.float32(np.inf)))

    def _rows(self, ids: Ids) -> Wide:
        rows = self._plain.fetch(ids).astype(np.float64) - self._means[self._codes[ids]]
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        rows[lengths < SMALLEST] = 0
        centered: Wide = rows / np.maximum(lengths, SMALLEST)[:, None]
        return centered

    def _factors(self, wide: Wide) -> Wide:
        """How much wider the widest spread of scores is, for each query and modality: (n, modalities), at least 1."""
        factors = np.ones((len(wide), len(MODALITIES)))
        if self._center is Center.MEANS or not self._kinds:
            return factors
        counts = np.array([len(self._sample[code]) for code in self._kinds])
        for place, query in enumerate(wide):
            spread = np.array([_spread(self._sample[each] @ query) for each in self._kinds])
            spread = (counts * spread + PRIOR * np.average(spread, weights=counts)) / (counts + PRIOR)
            if spread.min() > 0:
                factors[place, self._kinds] = np.sqrt(spread.max() / spread)
        return factors

    @cached_property
    def _sample(self) -> dict[int, Wide]:
        return {code: self._rows(ids) for code, ids in self._sampled.items()}

    @cached_property
    def _sampled(self) -> dict[int, Ids]:
        """Living documents of each modality, spread evenly over their ids."""
        return {
            code: own[np.linspace(0, len(own) - 1, min(SAMPLE, len(own))).astype(np.int64)]
            for code, own in self._own.items()
        }

    @cached_property
    def _ranges(self) -> dict[int, Wide]:
        return {code: self._range(code) for code in self._kinds}

    def _range(self, code: int) -> Wide:
        """The range of b for all but the rarest documents of a modality, in steps: (9,) float64."""
        inner = self._plain.fetch(self._sampled[code]) @ self._means[code]
        most, middle, off = math.sqrt(self._squares[code]), float(inner.mean()), DEVIATIONS * float(inner.std())
        return np.linspace(max(middle - off, -most), min(middle + off, most), 9)


def lifted(cosines: npt.NDArray[Any], factors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Raise scores whose spread is narrower than the widest by a factor (see the module); 1 / f undoes it."""
    up: npt.NDArray[Any] = factors * cosines / (1 + (factors - 1) * np.abs(cosines))
    return up


def _spread(cosines: Wide) -> float:
    """The square root of the mean fourth power of all but the largest scores."""
    powers = np.sort(cosines**4)
    return float(np.sqrt(powers[: len(powers) - math.ceil(TRIMMED * len(powers))].mean())) if len(powers) > 1 else 0.0


def _best(ids: Ids, scores: Scores, k: int, plans: tuple[Plan, ...] = (Plan.SCAN,)) -> Neighbors:
    """The k best of each row of candidates, ids and scores (n, m), ties by ascending id; id -1 stands for none."""
    keys = np.where(ids == NO_ID, np.iinfo(np.int64).max, ids)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    found = replace(no_neighbors(len(ids), k), plans=plans)
    found.ids[:, : order.shape[1]] = np.take_along_axis(ids, order, 1)
    found.scores[:, : order.shape[1]] = np.take_along_axis(scores, order, 1)
    return found
