"""What a run of `train photo` depends on, besides its corpus.

What this module does not know: how any of it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from indexer.errors import CallError
from pipelines.train.common.recipe import Recipe


@dataclass(frozen=True)
class PhotoRecipe(Recipe):
    """Everything a run depends on, besides the corpus: these, and what `Recipe` has.

    Attributes:
        connectors: Settings of `ConnectorsConfig`.
        templates: Caption template to its share; see `Templates`.
        values: Field to raw value to the words said for it.
        split_field: The field that names a record's part, or None to train on all.
        train_part: The part trained on.
        validation_part: The part that progress is measured on.
        source_field: The field that names the source of a record, or None where there is one source only. A batch is
            of one source, and a step has a batch of each: a photo of a dog says nothing about which shirt is meant.
        batches: By source, photos in its batch; a source that is not there has `batch`.
        shares: By source, the weight of its loss; 1 where it is not there.
        batch: Photos in a batch.
        views: Changed copies of each photo of the training part, whose features are kept.
        crops: By source, the least share of a photo's area that a changed copy shows; 0.5 where it is not there.
        steps: Optimiser steps of the first phase, in which everything is learnt: captions, and what the image encoder's
            own classifier knows.
        settle_steps: Of the second, in which one side stands still, all its vectors are known, and the other is
            compared with all of them. Sides take turns.
        turn: Steps between turns.
        others: Vectors of the side at rest that a batch of the second phase is compared with, besides its own.
        peak: AdamW's largest learning rate in the first phase.
        settle_peak: The same in the second.
        weight_decay: AdamW's decay, on matrices alone.
        average: Decay of the moving average of the weights, which is what is evaluated and saved.
        temperature: Of the contrast, where it starts; it is learnt.
        alike: The share of the contrast's aim that goes to captions that the text model finds alike; the photo's own
            caption has the rest.
        alike_temperature: How much alike they must be.
        dropout: Of inputs and layers.
        hidden: The share of places of the grid, and of words, that are hidden.
        classes: The weight of the classifier's knowledge; 0 for none. See `classes.py`.
        class_batch: Photos of each source that the classifier is asked about.
        class_names: Names of classes that a photo chooses from.
        made_up: Feature maps made up from the weights of classes, as a share of those photos.
        bf16: Autocast to bfloat16.
    """

    connectors: Mapping[str, int] = field(default_factory=dict)
    templates: Mapping[str, float] = field(default_factory=lambda: {"{text}": 1.0})
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    split_field: str | None = None
    train_part: str = "train"
    validation_part: str = "validation"
    source_field: str | None = None
    batches: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    batch: int = 384
    views: int = 4
    crops: Mapping[str, float] = field(default_factory=dict)
    steps: int = 2000
    settle_steps: int = 500
    turn: int = 50
    others: int = 4096
    peak: float = 1e-3
    settle_peak: float = 2e-4
    weight_decay: float = 0.1
    average: float = 0.998
    temperature: float = 0.05
    alike: float = 0.3
    alike_temperature: float = 0.05
    dropout: float = 0.15
    hidden: float = 0.12
    classes: float = 0.5
    class_batch: int = 64
    class_names: int = 256
    made_up: float = 0.5
    bf16: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in ("batch", "turn", "evaluate_every", "class_names") and value < 1:
                raise CallError(f"The recipe's {name} is {value}; it must be at least 1.")
            if name in ("alike", "dropout", "hidden") and not 0 <= value < 1:
                raise CallError(f"The recipe's {name} is {value}; it must be from 0 to less than 1.")
        if self.batch < 2 or any(size < 2 for size in self.batches.values()):
            raise CallError("A batch of the recipe has fewer than 2 photos: there is nothing to tell apart.")
