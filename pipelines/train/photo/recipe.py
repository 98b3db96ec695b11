"""The settings of a `train photo` run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from indexer.errors import CallError
from pipelines.train.common.recipe import Recipe


@dataclass(frozen=True)
class PhotoRecipe(Recipe):
    """Everything a run depends on besides the corpus: these fields, and those of `Recipe`.

    Attributes:
        connectors: Settings of `ConnectorsConfig`.
        templates: Caption template to its share; see `Templates`.
        values: Field to raw value to the words for it.
        split_field: The field that names a record's part, or None to train on all.
        train_part: The part to train on.
        validation_part: The part to measure progress on.
        source_field: The field that names the source of a record, or None if there is only one. A batch has one source,
            and a step has a batch of each: a photo of a dog is no useful negative for a shirt.
        batches: Photos in a batch, by source; `batch` for sources not listed.
        shares: Weight of the loss, by source; 1 for sources not listed.
        batch: Photos in a batch.
        views: Augmented copies of each training photo, whose features are stored.
        crops: Least share of a photo's area that an augmented copy shows, by source; 0.5 for sources not listed.
        steps: Optimizer steps of the first phase, in which everything is learned: captions, and the outputs of the
            image encoder's own classifier.
        settle_steps: Optimizer steps of the second phase, in which one side is frozen, all its vectors are known, and
            the other is compared with all of them. Sides take turns.
        turn: Steps between turns.
        others: Vectors of the frozen side that a batch of the second phase is compared with, besides its own.
        peak: Peak learning rate of AdamW in the first phase.
        settle_peak: Peak learning rate in the second phase.
        weight_decay: AdamW's decay, for matrices only.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        temperature: Initial temperature of the contrast; it is learned.
        alike: Share of the contrast's target that goes to captions that the text model finds similar; the photo's own
            caption has the rest.
        alike_temperature: Temperature of their similarity.
        dropout: Dropout of inputs and layers.
        hidden: Share of places of the grid, and of words, that are masked.
        classes: Weight of the classifier's knowledge; 0 for none. See `classes.py`.
        class_batch: Photos of each source that are compared with classes.
        class_names: Names of classes that a photo is compared with.
        made_up: Features synthesized from the weights of classes, as a share of those photos.
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
            raise CallError("A batch of the recipe has fewer than 2 photos: there are no negatives.")
