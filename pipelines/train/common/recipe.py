"""Recipes of training runs: their common fields, and reading them from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from indexer.embed.devices import settled_device
from indexer.errors import CallError, UnknownNameError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Asked = TypeVar("Asked", bound="DataclassInstance")
OBJECT = 'Give a JSON object of settings, such as {"steps": 1000}.'


def load_recipe(kind: type[Asked], path: Path | None, overrides: Mapping[str, Any]) -> Asked:
    """A recipe from its JSON file and the command line, which takes precedence.

    Raises:
        CallError: The file is missing or is not a JSON object.
        UnknownNameError: A key that the recipe does not have.
        DeviceError: This machine does not have the device.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CallError(
                f"No recipe at {path}.", "Give a JSON file of settings, or none for the defaults."
            ) from None
        except OSError as error:
            raise CallError(f"The recipe {path} cannot be read: {error.strerror}.", "Give a JSON file.") from None
        except ValueError as error:  # not JSON, or not UTF-8
            raise CallError(f"The recipe {path} is not JSON: {error}.", OBJECT) from None
        if not isinstance(values, dict):
            raise CallError(f"The recipe {path} holds a {type(values).__name__}, not an object.", OBJECT)
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise UnknownNameError("recipe key", key, known)
    for each in fields(kind):
        wanted, value = type(each.default), values.get(each.name)
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if wanted in (bool, int, float, str) and each.name in values and not fits:
            raise CallError(f"The recipe's {each.name} is {value!r}; it must be of the type {wanted.__name__}.")
    if "device" in values and "device" in known:
        values["device"] = settled_device(values["device"])
    return kind(**values)


@dataclass(frozen=True)
class Recipe:
    """The fields of every recipe.

    Attributes:
        steps: Optimizer steps of the first stage, or of the only one.
        batch: Samples in a step.
        peak: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up of each stage.
        seed: Seed for everything random.
        evaluate_every: Steps between evaluations and checkpoints.
        device: `cpu` or `cuda`.
    """

    steps: int = 2000
    batch: int = 256
    peak: float = 1e-3
    warmup: int = 100
    seed: int = 0
    evaluate_every: int = 250
    device: str = "cpu"


@dataclass(frozen=True)
class CorpusRecipe(Recipe):
    """The further fields of recipes for a captioned corpus.

    Attributes:
        templates: Caption template to its share; see `Templates`.
        values: Field to raw value to the words for it.
        split_field: The field that names a record's part, or None to train on all.
        train_part: The part to train on.
        validation_part: The part to measure progress on.
        keep: Least share of words that two captions must have in common, if a sample is made from two; see
            `Differences`.
        look: The field that distinguishes images of one text, or None; see `Differences`.
        weight_decay: AdamW's decay, for matrices only.
    """

    templates: Mapping[str, float] = field(default_factory=lambda: {"{text}": 1.0})
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    split_field: str | None = None
    train_part: str = "train"
    validation_part: str = "validation"
    keep: float = 0.4
    look: str | None = None
    weight_decay: float = 0.01
