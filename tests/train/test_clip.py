"""Training end to end on a handful of images: it learns, resumes as if never stopped, and its model loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.corpus.records import Record
from indexer.embed import load_embedder
from indexer.errors import CallError, UnknownNameError
from indexer.types import Document, Item
from pipelines.train.clip import train as clip
from pipelines.train.clip.model import ClipRecipe
from pipelines.train.clip.train import contrast, train_clip
from pipelines.train.common.augment import augment
from pipelines.train.common.recipe import load_recipe
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import cosine_schedule

COLOURS = ["red", "green", "blue", "yellow", "black", "white", "purple", "orange"]
TINY = ClipRecipe(
    vision={"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    text={"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1},
    dim=16,
    steps=12,
    batch=8,
    warmup=2,
    peak=3e-3,
    evaluate_every=6,
    seed=1,
)


def corpus() -> Iterator[Record]:
    for colour in COLOURS:
        yield Record(Document(colour, f"{colour} square", Image.new("RGB", (16, 16), colour)), "")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["averaged"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_clip(corpus(), TINY, folder)
    return folder


def test_the_loss_falls_and_the_run_leaves_metrics_a_plot_and_a_model(trained: Path) -> None:
    records = RunFolder(trained).metrics()
    assert [record["step"] for record in records] == [6, 12]
    assert records[1]["loss"] < records[0]["loss"]
    assert (trained / "metrics.png").stat().st_size > 5000
    assert json.loads((trained / "recipe.json").read_text())["seed"] == 1


def test_a_run_that_was_stopped_ends_where_an_unstopped_one_does(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clip._Trainer.train_step
    calls = 0

    def dies(self: clip._Trainer) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(clip._Trainer, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train_clip(corpus(), TINY, tmp_path)
    monkeypatch.setattr(clip._Trainer, "train_step", real)
    train_clip(corpus(), TINY, tmp_path)
    for name, value in weights(trained).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, msg=name)


def test_another_recipe_in_the_same_folder_is_refused(trained: Path) -> None:
    with pytest.raises(CallError, match="peak, seed differ"):
        train_clip(corpus(), replace(TINY, seed=2, peak=1e-4), trained)


def test_the_model_loads_as_an_embedder_and_tells_the_colours_apart(trained: Path) -> None:
    embedder = load_embedder(f"open_clip:{trained / 'model'}")
    images = embedder.encode_document([Item(image=Image.new("RGB", (16, 16), colour)) for colour in COLOURS])
    again = embedder.encode_document([Item(image=Image.new("RGB", (16, 16), "red"))])
    assert images.shape == (8, 16)
    np.testing.assert_allclose(images[:1], again, atol=1e-5)
    assert embedder.encode_query([Item(text="red square")]).shape == (1, 16)


def test_a_teacher_draws_words_no_caption_holds_to_its_own_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {f"{colour} square": np.eye(8, 384)[row] for row, colour in enumerate(COLOURS)}
    words = {"crimson": known["red square"], "azure": known["blue square"]}
    table = known | words
    monkeypatch.setattr(clip, "teacher_words", lambda: list(words))
    monkeypatch.setattr(
        clip, "teacher_vectors", lambda texts, _: np.stack([table[text] for text in texts]).astype(np.float32)
    )
    folder = tmp_path / "run"
    train_clip(corpus(), replace(TINY, words=2, text_steps=40, average=0.9), folder)
    embedder = load_embedder(f"open_clip:{folder / 'model'}")
    said = embedder.encode_query([Item(text=text) for text in ("crimson", "azure", "red square", "blue square")])
    assert said[0] @ said[2] > said[0] @ said[3]
    assert said[1] @ said[3] > said[1] @ said[2]


def test_contrast_is_lowest_when_each_row_meets_its_own() -> None:
    rows = torch.eye(4)
    scale = torch.tensor(20.0)
    right = contrast(rows, rows, torch.eye(4, dtype=torch.bool), scale)
    wrong = contrast(rows, rows.roll(1, 0), torch.eye(4, dtype=torch.bool), scale)
    assert right < 0.01 < wrong


def test_two_true_captions_share_the_target() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    positives = rows @ rows.T > 0.5
    assert contrast(rows, rows, positives, torch.tensor(50.0)) == pytest.approx(float(np.log(2) * 2 / 3), abs=1e-3)


def test_augmentation_repeats_for_a_seed_keeps_white_margins_and_never_mirrors() -> None:
    pixels = np.full((64, 16, 16, 3), 255, np.uint8)
    pixels[:, 4:12, 1:5] = 0
    once = augment(pixels, np.random.default_rng(3), torch.device("cpu"))
    again = augment(pixels, np.random.default_rng(3), torch.device("cpu"))
    assert torch.equal(once, again)
    assert once.shape == (64, 3, 16, 16)
    dark_left = once[..., :8].mean((1, 2, 3)) < once[..., 8:].mean((1, 2, 3))
    assert bool(dark_left.all())


def test_the_schedule_warms_up_and_comes_down() -> None:
    assert cosine_schedule(0, 100, 10, 1.0) == pytest.approx(0.1)
    assert cosine_schedule(10, 100, 10, 1.0) == pytest.approx(1.0)
    assert cosine_schedule(100, 100, 10, 1.0, floor=0.2) == pytest.approx(0.2)


def test_a_recipe_refuses_what_it_does_not_know_and_takes_overrides(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text('{"steps": 5, "batch": 7}')
    assert load_recipe(ClipRecipe, file, {"steps": 9, "seed": None}).steps == 9
    file.write_text('{"step": 5}')
    with pytest.raises(UnknownNameError, match="recipe key 'step' is not known"):
        load_recipe(ClipRecipe, file, {})
    file.write_text("[1]")
    with pytest.raises(CallError, match="not an object"):
        load_recipe(ClipRecipe, file, {})
    with pytest.raises(CallError, match="No recipe"):
        load_recipe(ClipRecipe, tmp_path / "none.json", {})
