"""The one training loop, on a model of two weights."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from pipelines.train.bridge.parts import BridgeRecipe
from pipelines.train.clip.model import ClipRecipe
from pipelines.train.common.fit import Trainer, backward, fit
from pipelines.train.common.recipe import CorpusRecipe, Recipe
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, cosine_schedule, learning_rate, move_average
from pipelines.train.generator.autoencoder import AutoencoderRecipe
from pipelines.train.generator.model import GeneratorRecipe
from pipelines.train.inversion.train import InversionRecipe
from pipelines.train.unified.model import UnifiedRecipe

RECIPE = Recipe(steps=4, batch=3, peak=0.1, warmup=1, evaluate_every=3)


class Line(Trainer[Recipe]):
    """Learns y = 2x; stops where told."""

    def __init__(self, recipe: Recipe, dies_at: int = 100) -> None:
        super().__init__(recipe, [Stage(recipe.steps, recipe.peak), Stage(3, recipe.peak / 2, 0.01)])
        torch.manual_seed(0)
        self.model, self.averaged = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(self.model.parameters())
        self.rates, self.dies_at = [], dies_at

    def losses(self, rng):
        if self.step == self.dies_at:
            raise KeyboardInterrupt
        assert all(each.grad is None for each in self.model.parameters())
        self.rates.append(self.optimiser.param_groups[0]["lr"])
        x = torch.from_numpy(rng.standard_normal((self.recipe.batch, 1))).float()
        return {"loss": backward((self.model(x) - 2 * x).square().mean())}

    def trained(self):
        return self.model.parameters()

    def average(self):
        move_average(zip(self.averaged.parameters(), self.model.parameters(), strict=True), 0.9, self.step)

    def parts(self):
        return {"model": self.model, "averaged": self.averaged, "optimiser": self.optimiser}

    def evaluate(self):
        return {"weight": self.averaged.weight.item()}


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = Line(RECIPE)
    measured = fit(RunFolder.start(tmp_path / "whole", RECIPE), whole)
    with pytest.raises(KeyboardInterrupt):
        fit(RunFolder.start(tmp_path / "halves", RECIPE), Line(RECIPE, dies_at=5))
    second = Line(RECIPE)
    again = fit(RunFolder.start(tmp_path / "halves", RECIPE), second)
    assert len(second.rates) == 3, "the checkpoint at the end of the first stage is where it goes on"
    assert again == measured
    assert all(torch.equal(one, other) for one, other in zip(whole.trained(), second.trained(), strict=True))
    steps = [record["step"] for record in RunFolder(tmp_path / "whole").metrics()]
    assert steps == [3, 4, 6, 7], "every third step, and the end of each stage"


def test_every_stage_has_its_own_schedule(tmp_path):
    line = Line(RECIPE)
    fit(RunFolder.start(tmp_path, RECIPE), line)
    first = [cosine_schedule(step, 4, 1, 0.1) for step in range(4)]
    assert line.rates == first + [cosine_schedule(step, 3, 1, 0.05, 0.01) for step in range(3)]
    assert learning_rate(2, [Stage(0, 9.0), Stage(4, 0.1)], 1) == first[2], "a stage of no steps is passed over"


def test_an_average_follows_quickly_at_first():
    kept, new = torch.zeros(1), torch.ones(1)
    move_average([(kept, new)], 0.999, since=0)
    assert kept.item() == pytest.approx(0.9)
    kept.zero_()
    move_average([(kept, new)], 0.5, since=1000)
    assert kept.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "recipe",
    [ClipRecipe, InversionRecipe, GeneratorRecipe, UnifiedRecipe, BridgeRecipe],
    ids=lambda each: each.__name__,
)
def test_recipes_over_a_corpus_share_its_fields(recipe):
    assert issubclass(recipe, CorpusRecipe)
    assert {each.name for each in fields(CorpusRecipe)} < {each.name for each in fields(recipe)}
    assert issubclass(AutoencoderRecipe, Recipe)
