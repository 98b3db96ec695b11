"""Query vectors without what queries of their kind have in common: the query's side of a centred snapshot.

What this module does not know: how documents are centred, how queries are composed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from indexer.types import Item, Modality
from indexer.vectors.modality_gap import query_mean
from retrieval.methods.base import Composer, Encoded
from retrieval.query import Drawn, Joint, Part, Stored
from retrieval.scoring import Vector, fold

if TYPE_CHECKING:
    from indexer.vectors.centered import CentredSnapshot


def centre_queries(encoded: Sequence[Encoded], composer: Composer, view: CentredSnapshot) -> list[Encoded]:
    """The same queries with every part's vector centred and of unit length again.

    Args:
        encoded: Queries with the vectors that the model gave.
        composer: Says what each of them is the vector of.
        view: Whose space they are to be compared in. A stored document stands there already.
    """
    means = {modality: np.asarray(query_mean(view.plain.space, modality), np.float32) for modality in Modality}
    answer = []
    for each in encoded:
        parts, vectors = composer.parts(each.query), dict(each.vectors)
        for name, vector in each.vectors.items():
            part = parts[name]
            if isinstance(part, Stored):
                vectors[name] = view.vectors(view.vector_ids([part.document]))[0]
            else:
                vectors[name] = _without(vector, means[_modality(part)])
        answer.append(replace(each, vectors=vectors))
    return answer


def _modality(part: Part) -> Modality:
    """What a part is the vector of: a sentence with a word of a picture in it is a text, a drawing a picture."""
    if isinstance(part, Item):
        return part.modality
    if isinstance(part, Joint):
        return Modality.FUSED
    return Modality.IMAGE if isinstance(part, Drawn) else Modality.TEXT


def _without(vector: Vector, mean: Vector) -> Vector:
    return fold(np.stack([vector, mean]), [1.0, -1.0])
