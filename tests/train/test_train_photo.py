"""Training photo models: two phases, frozen parts that stay so, kept features, resuming, and a result that is used."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_corpus import COLOURS, corpus, draw, dying
from typer.testing import CliRunner

from indexer.corpus.records import Record
from indexer.embed import load_embedder
from indexer.embed.photo.image_encoder import ImageEncoder
from indexer.errors import CallError
from indexer.types import Document, Item
from pipelines.cli.app import app
from pipelines.train.common.run import RunFolder
from pipelines.train.photo import classes, features, trainer
from pipelines.train.photo.classes import ClassTeacher, class_texts, named_classes
from pipelines.train.photo.recipe import PhotoRecipe
from pipelines.train.photo.trainer import _Trainer, train_photo

SMALL = {"dim": 24, "width": 16, "heads": 2, "hidden": 16, "image_layers": 1}
RECIPE = PhotoRecipe(
    connectors=SMALL, split_field="split", source_field="maker", batches={"s": 3}, batch=6, views=1, steps=4,
    settle_steps=4, turn=2, others=4, warmup=1, classes=0.0, class_batch=3, class_names=12, evaluate_every=3, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    measured = train_photo(corpus(), RECIPE, folder)
    for part in ("train", "validation"):
        assert {f"{part}_text_photo_r1", f"{part}_photo_text_r10", f"{part}_s_text_photo_r10"} <= measured.keys()
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["connectors"]


def test_the_result_is_used_as_it_was_measured(trained: Path) -> None:
    model = load_embedder(f"photo:{trained / 'model'}")
    assert model.dim == 24
    run = _Trainer(corpus(), RECIPE, RunFolder(trained))
    state = RunFolder(trained).load()
    assert state is not None
    run.load_state(state)
    documents = [record.document for record in corpus()]
    photos = model.encode_document([Item(image=each.image) for each in documents])
    texts = model.encode_query([Item(text=each.text) for each in documents])
    places = np.array([run.data.texts.index(str(each.text)) for each in documents])
    np.testing.assert_allclose(photos, run.photo_vectors(np.arange(8)).numpy(), atol=5e-3)  # saved in half precision
    np.testing.assert_allclose(texts, run.text_vectors(places).numpy(), atol=5e-3)


def test_the_connectors_know_the_spread_of_what_they_read(trained: Path) -> None:
    run = _Trainer(corpus(), RECIPE, RunFolder(trained))
    rows = np.concatenate(list(run.sources.values()))
    late, early = run.photos.read(rows, np.zeros(len(rows), np.int64))
    image = run.connectors.image
    read = (late[:, 0].sqrt() - image.late_mean) / image.late_spread
    torch.testing.assert_close(read.mean(0), torch.zeros(1280), atol=1e-4, rtol=0)
    assert 0.3 < read.std() < 1
    torch.testing.assert_close(image.early_mean, early.flatten(0, 1).mean(0))


def test_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "WORDINGS", ("{name}",))  # a thousand texts, not four thousand
    recipe = replace(RECIPE, classes=0.5, steps=40, peak=1e-2, dropout=0.0, hidden=0.0, source_field=None, views=0)
    run = _Trainer(corpus(), recipe, RunFolder.start(tmp_path / "run", recipe))
    losses = [run.train_step() for _ in range(40)]
    assert {"loss", "loss_photos", "loss_classes"} == losses[0].keys()
    for name in losses[0]:
        assert np.mean([each[name] for each in losses[-5:]]) < np.mean([each[name] for each in losses[:5]]) - 0.05


def test_settling_learns_from_both_sides(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=0, settle_steps=40, turn=1, settle_peak=1e-2, dropout=0.0, hidden=0.0, views=0)
    run = _Trainer(corpus(), recipe, RunFolder.start(tmp_path / "run", recipe))
    for side, other in (("image", "text"), ("text", "image")):  # turns of one step each
        before = {name: each.clone() for name, each in run.connectors.named_parameters()}
        run.optimiser.zero_grad(set_to_none=True)
        losses = run.train_step()
        assert {"loss", "loss_s", "loss_c"} == losses.keys()
        gradients = {
            name: each.grad is not None and bool(each.grad.any()) for name, each in run.connectors.named_parameters()
        }
        assert any(moved for name, moved in gradients.items() if name.startswith(side))
        assert not any(moved for name, moved in gradients.items() if name.startswith(other))
        assert before.keys() == gradients.keys()
    first, last = losses["loss"], np.mean([run.train_step()["loss"] for _ in range(38)][-6:])
    assert last < first - 0.05


def test_a_run_that_was_killed_ends_like_one_that_was_not(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer._Trainer, "train_step", dying(trainer._Trainer.train_step, 6))
        with pytest.raises(KeyboardInterrupt):
            train_photo(corpus(), RECIPE, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    train_photo(corpus(), RECIPE, tmp_path)
    for name, value in weights(trained).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=0, atol=1e-6)


def test_features_are_computed_once_and_go_on_where_they_stopped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PART", 3)
    seen: list[int] = []
    real = ImageEncoder.features

    def counted(self: ImageEncoder, pixels: np.ndarray) -> object:
        seen.append(len(pixels))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(ImageEncoder, "features", counted)
    run = RunFolder.start(tmp_path, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        _Trainer(corpus(), RECIPE, run)
    assert seen == [3, 3, 2]
    _Trainer(corpus(), RECIPE, run)
    assert seen[3:] == [2, 3, 3]  # what was lost, and the changed copies of the six to train on
    for file in (trained / "features").glob("*.npy"):
        np.testing.assert_allclose(np.load(tmp_path / "features" / file.name), np.load(file), atol=2e-2)
    _Trainer(corpus(), RECIPE, run)
    assert len(seen) == 6


def test_photos_that_cannot_be_used_cost_themselves(tmp_path: Path) -> None:
    bad = Record(Document("bad", "red square", b"no photo", {"split": "train", "maker": "s"}), "")
    records = [*corpus()[:2], bad, *corpus()[2:]]
    run = _Trainer(records, RECIPE, RunFolder.start(tmp_path / "run", RECIPE))
    assert run.photos.bad.tolist() == [2]
    assert 2 not in np.concatenate(list(run.sources.values()))
    assert np.isfinite(run.train_step()["loss"])


def test_changed_copies_are_other_cuts_of_the_same_photo() -> None:
    photo = Image.new("RGB", (90, 60), "white")
    photo.paste((255, 0, 0), (0, 0, 30, 60))
    copies = [features.changed_copy(photo, 0.5, np.random.default_rng([1, number])) for number in range(40)]
    assert all(copy.size[0] == copy.size[1] for copy in copies)
    red = [float((np.asarray(copy)[..., 2] < 128).mean()) for copy in copies]
    assert min(red) < 0.25 < 0.37 < max(red)  # of a third
    left = [np.asarray(copy)[copy.size[1] // 2, 3, 2] < 128 for copy in copies]
    assert 8 < sum(left) < 32  # about half of them are mirrored
    whole = [features.changed_copy(photo, 1.0, np.random.default_rng([2, number])) for number in range(20)]
    assert all(0.2 < (np.asarray(copy)[..., 2] < 128).mean() < 0.6 for copy in whole)


def test_the_classifier_is_a_teacher() -> None:
    names = class_texts()
    assert len(names) == 1000
    assert "a photo of tench" in names[0]
    classifier = ImageEncoder.load("cpu", torch.float32).model.classifier
    teacher, rng = ClassTeacher(classifier), np.random.default_rng(0)
    late = torch.rand(16, 10, 1280)
    made, rows = teacher.made_up(late, 200, rng)
    assert made.shape == (200, 10, 1280)
    assert made.min() >= 0
    assert len(rows) == 200
    sure = teacher.shares(made).amax(1)
    assert sure.median() > 3 * teacher.shares(late).amax(1).median()  # made-up features are of a class
    assert len(set(teacher.shares(made).argmax(1).tolist())) > 100  # and of many
    shares = torch.zeros(2, 1000)
    shares[0, [1, 2, 3]], shares[1, [7, 8, 9]] = 0.3, 0.3
    chosen = named_classes(shares, 20, rng)
    assert {1, 2, 3, 7, 8, 9} < set(chosen.tolist())
    assert len(set(chosen.tolist())) == 20


def test_captions_that_are_alike_share_the_aim(trained: Path) -> None:
    run = _Trainer(corpus(), RECIPE, RunFolder(trained))
    captions = np.arange(4)
    right = np.eye(4, dtype=bool)
    aim = run._aim(right, captions, captions)
    torch.testing.assert_close(aim.sum(1), torch.ones(4))
    assert (aim.diagonal() > 1 - RECIPE.alike).all()
    assert (aim - torch.diag(aim.diagonal()) > 0).any()
    right[0, 1] = True
    assert run._aim(right, captions, captions)[0, 1] > 0.35  # two right captions share


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 1}, "fewer than 2 photos"),
        ({"batches": {"s": 1}}, "fewer than 2 photos"),
        ({"turn": 0}, "turn is 0"),
        ({"alike": 1.5}, "alike is 1.5"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(CallError, match=message):
        replace(RECIPE, **change)


def test_a_corpus_without_pairs_is_refused(tmp_path: Path) -> None:
    alone = [Record(Document("1", image=draw("red", "circle")), "")]
    with pytest.raises(CallError, match="no document with both"):
        train_photo(alone, RECIPE, tmp_path)
    with pytest.raises(CallError, match="read several times"):
        train_photo(iter(corpus()), RECIPE, tmp_path)


def test_connectors_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="cannot be made"):
        train_photo(corpus(), replace(RECIPE, connectors={"depth": 3}), tmp_path)


def test_the_command(tmp_path: Path) -> None:
    for number, (colour, shape) in enumerate((c, s) for c in COLOURS for s in ("circle", "square")):
        draw(colour, shape, 32).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"{colour} {shape}")
    values = {"connectors": SMALL, "batch": 6, "views": 0, "warmup": 1, "classes": 0.0}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    called = [
        "train",
        "photo",
        str(tmp_path),
        "--out",
        str(tmp_path / "run"),
        "--recipe",
        str(tmp_path / "recipe.json"),
    ]
    result = CliRunner().invoke(app, [*called, "--steps", "2", "--settle-steps", "1"])
    assert result.exit_code == 0, result.output
    assert re.search(r"--model photo:\S+model", result.output)
    assert load_embedder(f"photo:{tmp_path / 'run/model'}").dim == 24
