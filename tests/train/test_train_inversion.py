"""Training an inversion by each recipe: it learns, resumes as if never stopped, and its result is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_corpus import corpus, dying
from tiny_models import DIM, WIDTH, tiny_clip
from typer.testing import CliRunner

from indexer.corpus.records import Record
from indexer.embed import load_embedder
from indexer.embed.textual_inversion import load_inversion
from indexer.errors import CallError, UnknownNameError
from indexer.types import Document, Item
from pipelines.cli.app import app
from pipelines.train.common.run import RunFolder
from pipelines.train.inversion import train as program
from pipelines.train.inversion.train import InversionMethod, InversionRecipe, train_inversion

METHODS = [method.value for method in InversionMethod]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"open_clip:{tiny_clip(tmp_path_factory.mktemp('clip'))}"


@pytest.fixture(scope="module")
def recipe(model: str) -> InversionRecipe:
    return InversionRecipe(
        model=model, split_field="split", look="maker", image_share=0.2, sentences=("{word}, {text}", "{text} of {word}"),
        prompts=("a photo of {word}", "{word}"), feature_noise=0.1, steps=8, batch=6, peak=3e-3, warmup=2,
        optimise_steps=5, evaluate_every=4, seed=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(recipe: InversionRecipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {method: tmp_path_factory.mktemp(method) for method in METHODS}
    for method, folder in folders.items():
        measured = train_inversion(corpus(), replace(recipe, method=method), folder)
        assert measured.keys() == {"train_r1", "validation_r1"}
    return folders


def state(folder: Path) -> dict[str, torch.Tensor]:
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("phi", "averaged") for name, value in found[part].items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_metrics_a_plot_and_an_inversion_of_its_model(
    trained: dict[str, Path], method: str, model: str, recipe: InversionRecipe
) -> None:
    folder = trained[method]
    assert [record["step"] for record in RunFolder(folder).metrics()] == [4, 8]
    assert (folder / "metrics.png").stat().st_size > 5000
    assert json.loads((folder / "recipe.json").read_text())["method"] == method
    inversion, embedder = load_inversion(folder / "model"), load_embedder(model)
    config = inversion.config
    assert (config.feature_dim, config.hidden_dim, config.word_dim) == (DIM, 4 * DIM, WIDTH)
    assert (config.normalized, config.recipe, config.template) == (True, method, "{word}, {text}")
    assert config.text_tower == embedder.fingerprint().weights
    kept = state(folder)["averaged.layers.6.bias"]
    np.testing.assert_allclose(inversion.phi.layers[6].bias.detach(), kept, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_stopped_ends_where_an_unstopped_one_does_bit_for_bit(
    trained: dict[str, Path], method: str, recipe: InversionRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = program._Trainer.train_step
    monkeypatch.setattr(program._Trainer, "train_step", dying(real, 7))
    with pytest.raises(KeyboardInterrupt):
        train_inversion(corpus(), replace(recipe, method=method), tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    monkeypatch.setattr(program._Trainer, "train_step", real)
    train_inversion(corpus(), replace(recipe, method=method), tmp_path)
    resumed = state(tmp_path)
    for name, value in state(trained[method]).items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(method: str, recipe: InversionRecipe, tmp_path: Path) -> None:
    longer = replace(
        recipe, method=method, steps=60, evaluate_every=30, feature_noise=0.0, dropout=0.0, peak=1e-2, optimise_steps=20
    )
    losses = []
    real = program._Trainer.train_step

    def train_step(self: program._Trainer) -> dict[str, float]:
        told = real(self)
        losses.append(told["loss"])
        return told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program._Trainer, "train_step", train_step)
        train_inversion(corpus(), longer, tmp_path)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_words_that_were_optimised_are_kept_and_a_torn_file_is_never_left(
    trained: dict[str, Path], recipe: InversionRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(trained["searle"] / "optimised.npz") as found:
        assert found["rows"].tolist() == [0, 1, 2, 3, 4, 5]
        assert found["words"].shape == (6, WIDTH)

    def torn(file: Path, **_: object) -> None:
        Path(file).write_bytes(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(KeyboardInterrupt):
        train_inversion(corpus(), replace(recipe, method="searle"), tmp_path)
    assert not (tmp_path / "optimised.npz").exists()


def test_only_the_part_to_train_on_is_trained_on(
    recipe: InversionRecipe, tmp_path: Path, trained: dict[str, Path]
) -> None:
    """Other images of the other part change nothing."""
    records = [
        Record(replace(each.document, image=Image.new("RGB", (16, 16), "black")), "")
        if each.document.fields["split"] == "validation"
        else each
        for each in corpus()
    ]
    train_inversion(records, replace(recipe, method="difference"), tmp_path)
    for name, value in state(trained["difference"]).items():
        assert torch.equal(state(tmp_path)[name], value), name


def test_without_a_split_all_is_trained_on(recipe: InversionRecipe, tmp_path: Path) -> None:
    measured = train_inversion(corpus(), replace(recipe, split_field=None, steps=2), tmp_path)
    assert measured.keys() == {"train_r1"}


def test_what_cannot_be_trained_is_refused(recipe: InversionRecipe, tmp_path: Path, trained: dict[str, Path]) -> None:
    with pytest.raises(UnknownNameError, match="'magic' is not known.*pic2word, searle, lincir, difference"):
        train_inversion(corpus(), replace(recipe, method="magic"), tmp_path / "a")
    with pytest.raises(CallError, match="fake:8 has no text encoder that reads pseudo-words"):
        train_inversion(corpus(), replace(recipe, model="fake:8"), tmp_path / "b")
    silent = [Record(Document("silent", None, Image.new("RGB", (4, 4))), "")]
    with pytest.raises(CallError, match="no document with both"):
        train_inversion(silent, recipe, tmp_path / "c")
    apart = [each for each in corpus() if each.document.id in ("red-square", "blue-circle")]
    with pytest.raises(CallError, match="No two of the 2 captions"):
        train_inversion(apart, recipe, tmp_path / "d")
    with pytest.raises(CallError, match="peak differ"):
        train_inversion(corpus(), replace(recipe, method="searle", peak=0.1), trained["searle"])


def test_the_command_trains_and_says_where_the_inversion_is(model: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for record in corpus():
        record.document.image.save(photos / f"{record.document.id}.png")
        (photos / f"{record.document.id}.txt").write_text(record.document.text)
    (tmp_path / "recipe.json").write_text(json.dumps({"method": "lincir", "batch": 5, "warmup": 1}))
    arguments = ["train", "inversion", photos, "--out", tmp_path / "run", "--model", model, "--steps", 2, "--batch", 4,
                 "--recipe", tmp_path / "recipe.json", "--method", "pic2word"]  # fmt: skip
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    assert f"The inversion is in {tmp_path / 'run' / 'model'}" in done.stdout
    assert "train_r1" in done.output
    asked = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (asked["method"], asked["batch"], asked["warmup"], asked["steps"]) == ("pic2word", 4, 1, 2)
    words = load_inversion(tmp_path / "run" / "model").words(load_embedder(model).encode_query([Item(text="red")]))
    assert words.shape == (1, WIDTH)


@pytest.mark.parametrize("command", ["inversion", "generator"])
def test_the_help_names_the_recipe_and_shows_how_to_use_the_result(command: str) -> None:
    shown = CliRunner().invoke(app, ["train", command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"{command.capitalize()}Recipe" in shown.stdout
    assert f"--{command} runs/{command}/model" in " ".join(shown.stdout.split())
