"""Training bridges: two phases, frozen parts that stay so, kept features, and a result that is used."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bridges import QFORMER, tiny_text
from tiny_corpus import corpus, draw, dying
from tiny_models import tiny_clip
from typer.testing import CliRunner

from indexer.corpus.records import Record
from indexer.embed import load_embedder
from indexer.embed.base import Fingerprint, Prepared
from indexer.embed.bridge.embedder import CONFIG, require_patch_encoder, save_bridge
from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.types import Document, Item, Modality
from pipelines.cli.app import app
from pipelines.train.bridge.parts import BridgeRecipe, read_texts, see, whitening
from pipelines.train.bridge.train import _lasting, _Trainer, train_bridge
from pipelines.train.common.run import RunFolder
from pipelines.train.common.tasks import NONE, Reading

KINDS = ("linear", "mlp", "qformer")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> BridgeRecipe:
    folder = tmp_path_factory.mktemp("parts")
    return BridgeRecipe(
        tower=f"open_clip:{tiny_clip(folder / 'tower')}", text=str(tiny_text(folder / "encoder", "encoder")),
        connector="mlp", queries=3, qformer=QFORMER | {"hidden_dropout_prob": 0.2}, views=2, max_tokens=16,
        sentences=("{text}", "but {text}"), split_field="split", look="maker", keep=0.4, align_steps=4, steps=4, batch=14,
        others=5, warmup=1, align_peak=3e-3, peak=3e-3, tokens=200, evaluate_every=3, seed=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(recipe: BridgeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Q-Former: it has dropout, which must fall alike in a run that is resumed."""
    folder = tmp_path_factory.mktemp("run")
    measured = train_bridge(corpus(), replace(recipe, connector="qformer"), folder)
    assert {"train_r10", "validation_r10", "train_fused_r1", "trained", "memory_mb", "seconds"} <= measured.keys()
    assert measured["picture_tokens"] == 3
    return folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["weights"]


@pytest.mark.parametrize(("kind", "text"), [*((kind, "encoder") for kind in KINDS), ("mlp", "decoder")])
def test_every_connector_learns_and_is_used(recipe: BridgeRecipe, tmp_path: Path, kind: str, text: str) -> None:
    model = str(tiny_text(tmp_path / "text", text))
    recipe = replace(
        recipe, connector=kind, text=model, align_steps=20, steps=8, align_peak=1e-2, temperature=0.1, evaluate_every=100, views=0,
        qformer=QFORMER | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )  # fmt: skip
    trainer = _Trainer(corpus(), recipe, RunFolder.start(tmp_path / "run", recipe))
    before = {name: each.clone() for name, each in trainer.text.model.state_dict().items()}
    losses = [trainer.train_step()["loss"] for _ in range(20)]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])
    aligned = trainer.bridge["project"].weight.clone()
    for _ in range(8):
        trainer.train_step()
    assert not torch.equal(aligned, trainer.bridge["project"].weight)
    assert all(torch.equal(before[name], each) for name, each in trainer.text.model.state_dict().items())
    save_bridge(tmp_path / "model", trainer.spec, trainer.bridge.state_dict())
    embedder = load_embedder(f"bridge:{tmp_path / 'model'}")
    picture = corpus()[0].document.image
    readings = [
        Reading(None, None, 0, image=0),
        Reading(None, "red square", NONE),
        Reading(None, "but blue", 0, image=0),
    ]
    rows = embedder.encode_query([Item(image=picture), Item("red square"), Item("but blue", picture)])
    assert (rows * trainer._vectors(readings)).sum(1).min() > 0.999, "what is trained is what is used"


def test_the_projection_holds_still_while_pictures_are_aligned(recipe: BridgeRecipe, tmp_path: Path) -> None:
    trainer = _Trainer(corpus(), recipe, RunFolder.start(tmp_path, recipe))
    before = trainer._vectors([Reading(None, "red square", NONE)])
    for _ in range(recipe.align_steps):
        trainer.train_step()
    np.testing.assert_array_equal(trainer._vectors([Reading(None, "red square", NONE)]), before)
    trainer.train_step()
    trainer.train_step()
    assert np.abs(trainer._vectors([Reading(None, "red square", NONE)]) - before).max() > 1e-4


@pytest.mark.parametrize("call", [3, 8])
def test_a_run_that_was_stopped_ends_where_an_unstopped_one_does_bit_for_bit(
    recipe: BridgeRecipe, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    recipe, real = replace(recipe, connector="qformer", evaluate_every=2), _Trainer.train_step
    monkeypatch.setattr(_Trainer, "train_step", dying(real, call))
    with pytest.raises(KeyboardInterrupt):
        train_bridge(corpus(), recipe, tmp_path)
    monkeypatch.setattr(_Trainer, "train_step", real)
    train_bridge(corpus(), recipe, tmp_path)
    resumed = state(tmp_path)
    for name, value in state(trained).items():
        assert torch.equal(resumed[name], value), name


def test_a_step_with_cached_gradients_is_the_plain_step(recipe: BridgeRecipe, tmp_path: Path) -> None:
    gradients = []
    for cached in (False, True):
        own = replace(recipe, connector="qformer", cache_gradients=cached, align_steps=0, tokens=60)
        trainer = _Trainer(corpus(), own, RunFolder.start(tmp_path / str(cached), own))
        trainer.train_step()
        gradients.append(torch.cat([each.grad.ravel() for each in trainer.bridge.parameters()]))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


def test_features_and_texts_are_computed_once(
    recipe: BridgeRecipe, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, connector="qformer")
    kept = sorted(each.name for each in trained.glob("*.npy"))
    assert [name.partition("-")[0] for name in kept] == ["features", "texts"]
    features = np.load(trained / kept[0])
    assert features.shape[:2] == (3, 8)
    assert np.abs(features[0] - features[1]).mean() > 1e-3, "views are changed images"
    monkeypatch.setattr("indexer.embed.clip.embedder.ClipEmbedder.patch_features", None)
    monkeypatch.setattr("indexer.embed.bridge.text_model.TextModel.read", None)
    _Trainer(corpus(), recipe, RunFolder(trained))


def test_only_the_part_to_train_on_is_trained_on(recipe: BridgeRecipe, trained: Path, tmp_path: Path) -> None:
    """Other images of the other part change nothing, and a bad one is left out."""
    records = [
        Record(replace(each.document, image=Image.new("RGB", (16, 16), "black")), "")
        if each.document.fields["split"] == "validation"
        else each
        for each in corpus()
    ]
    train_bridge(records, replace(recipe, connector="qformer"), tmp_path)
    for name, value in state(trained).items():
        assert torch.equal(state(tmp_path)[name], value), name


def test_a_bad_picture_is_left_out(recipe: BridgeRecipe, tmp_path: Path) -> None:
    records = corpus()
    records[1] = Record(replace(records[1].document, image=b"no picture"), "")
    trainer = _Trainer(records, recipe, RunFolder.start(tmp_path, recipe))
    assert trainer.rows.tolist() == [0, 2, 3, 4, 5]
    assert np.isfinite(trainer.train_step()["loss"])


def test_a_run_leaves_metrics_and_a_plot(trained: Path) -> None:
    assert [record["step"] for record in RunFolder(trained).metrics()] == [3, 4, 6, 8]
    assert (trained / "metrics.png").stat().st_size > 5000


def test_whitened_rows_have_no_common_direction() -> None:
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    rows = ((rng.standard_normal((500, 6)) * np.arange(1, 7)) @ turned + 20).astype(np.float32)
    matrix, offset = whitening(rows, len(rows))
    white = torch.from_numpy(rows) @ matrix.T + offset
    assert white.mean(0).abs().max() < 0.05
    correlations = torch.corrcoef(white.T)
    assert (correlations - torch.eye(6)).abs().max() < 0.05


def test_what_cannot_be_trained_is_refused(recipe: BridgeRecipe, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'magic' is not known. Known: linear, mlp, qformer"):
        train_bridge(corpus(), replace(recipe, connector="magic"), tmp_path / "a")
    with pytest.raises(CallError, match="no document with both"):
        train_bridge([Record(Document("silent", None, Image.new("RGB", (4, 4))), "")], recipe, tmp_path / "b")
    with pytest.raises(CallError, match="an iterator can be read once"):
        train_bridge(iter(corpus()), recipe, tmp_path / "b")
    with pytest.raises(ModelError, match="fake:8 cannot be used in a bridge"):
        train_bridge(corpus(), replace(recipe, tower="fake:8"), tmp_path / "c")
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        train_bridge(corpus(), replace(recipe, text="/nowhere"), tmp_path / "d")
    with pytest.raises(CallError, match="peak differ"):
        train_bridge(corpus(), replace(recipe, connector="qformer", peak=0.1), trained)
    apart = [each for each in corpus() if each.document.id in ("red-square", "blue-circle")]
    with pytest.raises(CallError, match="need pairs of similar captions"):
        train_bridge(apart, recipe, tmp_path / "e")


def test_the_command_trains_and_says_where_the_bridge_is(recipe: BridgeRecipe, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for record in corpus():
        record.document.image.save(photos / f"{record.document.id}.png")
        (photos / f"{record.document.id}.txt").write_text(record.document.text)
    (tmp_path / "recipe.json").write_text(json.dumps({"keep": 0.4, "views": 0, "max_tokens": 16}))
    arguments = ["train", "bridge", photos, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.json", "--steps", 1,
                 "--align-steps", 1, "--batch", 7, "--connector", "linear", "--tower", recipe.tower, "--text", recipe.text,
                 "--learning-rate", 0.02, "--align-learning-rate", 0.01]  # fmt: skip
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    assert f"The bridge is in {tmp_path / 'run' / 'model'}" in done.stdout
    trained = 32 * 32 + 32 + 32 * 32 + 32  # of the connector, and of the projection
    assert re.search(rf"^  trained +{trained:,}$", done.output, re.MULTILINE)
    assert re.search(r"^  picture_tokens +\d+$", done.output, re.MULTILINE)
    asked = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (asked["align_peak"], asked["peak"]) == (0.01, 0.02)
    spec = json.loads((tmp_path / "run" / "model" / CONFIG).read_text())
    assert (spec["connector"]["kind"], spec["pooling"]) == ("linear", "mean")


def test_features_are_kept_by_the_places_of_the_pictures(recipe: BridgeRecipe, tmp_path: Path) -> None:
    tower = require_patch_encoder(load_embedder(recipe.tower), recipe.tower)
    good = [record.document.image for record in corpus()[:2]]
    first = see(tower, lambda: [good[0], b"no picture", good[1]], recipe, tmp_path)
    again = see(tower, lambda: good, recipe, tmp_path)
    assert first.bad.tolist() == [1]
    assert again.features.shape[1] == 2
    np.testing.assert_array_equal(again.features[0, 1], first.features[0, 2])


class WideTower:
    """A tower with many features, and a text model with long vectors, that cost no time."""

    width, digest, pooling = 4096, "", "mean"

    def fingerprint(self):
        return Fingerprint("wide", "", "", "", "float32", 1)

    def preparer(self):
        return lambda item: Prepared(Modality.IMAGE, {"image": np.asarray(item.image)})

    def patch_features(self, prepared, layer=-1):
        return np.ones((len(prepared), 64, 256), np.float32)

    def table(self):
        return torch.zeros(1)

    def ids(self, text, most):
        return [0]

    def read(self, texts, pictures, shown):
        return torch.ones(len(texts), self.width)


def test_memory_does_not_grow_with_the_corpus(
    recipe: BridgeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.train.bridge.parts.PART", 8)
    picture, wide = draw("red", "square"), WideTower()

    def peak(count: int) -> int:
        tracemalloc.start()
        seen = see(wide, lambda: (picture for _ in range(count)), recipe, tmp_path)
        assert seen.features[[1] * 8, np.arange(count - 8, count)].min() == 1
        seen.means(np.arange(count))
        read = read_texts(wide, [f"red {number}" for number in range(count)], 8, tmp_path)
        assert read[np.arange(count - 8, count)].min() == 1
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(16), peak(512)
    assert large < 2 * small, "where features, of 100 kB an image, are 32 times as large"
    mapped = Path("/proc/self/maps")
    if mapped.exists():  # on Linux; what has been read through a mapping that stays is the process's own
        assert str(tmp_path) not in mapped.read_text()


def test_what_a_killed_run_left_of_its_features_goes(recipe: BridgeRecipe, tmp_path: Path) -> None:
    (tmp_path / ".tmp-half.npy").write_bytes(b"half")
    RunFolder.start(tmp_path, recipe)
    assert not list(tmp_path.glob(".tmp*"))


def test_pictures_that_change_while_they_are_read_are_told(recipe: BridgeRecipe, tmp_path: Path) -> None:
    tower = require_patch_encoder(load_embedder(recipe.tower), recipe.tower)
    images = iter([record.document.image] for record in corpus())
    with pytest.raises(CallError, match="changed while they were read"):
        see(tower, lambda: next(images), recipe, tmp_path)
    with pytest.raises(CallError, match="None of the corpus's 1 images"):
        see(tower, lambda: [b"no picture"], recipe, tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_of_models_that_are_no_folders_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji-clip").mkdir()
    assert _lasting("bundled:emoji-clip") == "bundled:emoji-clip"
    assert _lasting("open_clip:emoji-clip?draft=2") == f"open_clip:{tmp_path}/emoji-clip?draft=2"
    assert _lasting("emoji-clip") == f"{tmp_path}/emoji-clip"
    assert _lasting("sentence-transformers/x") == "sentence-transformers/x"
