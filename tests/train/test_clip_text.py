"""The second stage on a handful of shapes: an encoder that learns to read words made of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_corpus import corpus, dying

from indexer.embed import load_embedder
from indexer.embed.clip.embedder import ClipEmbedder
from indexer.embed.textual_inversion import load_inversion
from indexer.errors import ModelError
from indexer.types import Item
from pipelines.train.clip import train as clip
from pipelines.train.clip.model import ClipRecipe
from pipelines.train.clip.text_stage import TextStage
from pipelines.train.clip.train import soften, train_clip
from pipelines.train.common.augment import augment
from pipelines.train.common.captions import Captions, Templates
from pipelines.train.common.composed import ComposedBatch, queries_of

TINY = ClipRecipe(
    vision={"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    text={"context_length": 8, "vocab_size": 300, "width": 32, "heads": 2, "layers": 2},
    dim=16,
    templates={"{text}": 1.0, "{maker}": 0.2},
    split_field="split",
    look=None,
    steps=30,
    text_steps=150,
    distillation=0.0,
    sentences=("{word}, {text}", "{word} but {text}"),
    families=0.5,
    batch=16,
    warmup=2,
    peak=3e-3,
    text_peak=3e-3,
    average=0.9,
    evaluate_every=30,
    seed=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_clip(corpus(), TINY, folder)
    return folder


def test_a_sentence_with_a_pictures_word_finds_the_picture_that_is_meant(run: Path) -> None:
    embedder = load_embedder(f"open_clip:{run / 'model'}")
    assert isinstance(embedder, ClipEmbedder)
    inversion = load_inversion(run / "inversion")
    assert inversion.config.text_tower == embedder.fingerprint().weights
    records = [record.document for record in corpus() if record.document.fields["split"] == "train"]
    number = {document.id: row for row, document in enumerate(records)}
    pictures = embedder.encode_document([Item(image=document.image) for document in records])
    asked = [("red-square", "circle"), ("blue-circle", "red"), ("green-square", "blue"), ("red-circle", "square")]
    wanted = ["red-circle", "red-circle", "blue-square", "red-square"]
    words = inversion.words(pictures[[number[reference] for reference, _ in asked]])
    said = embedder.encode_pseudo_words("{word}, {text}", [text for _, text in asked], words)
    found = [records[row].id for row in (said @ pictures.T).argmax(1)]
    assert sum(one == other for one, other in zip(found, wanted, strict=True)) >= 3


def test_a_run_stopped_in_the_second_stage_ends_where_an_unstopped_one_does(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clip._Trainer.train_step
    monkeypatch.setattr(clip._Trainer, "train_step", dying(real, 100))
    with pytest.raises(KeyboardInterrupt):
        train_clip(corpus(), TINY, tmp_path)
    monkeypatch.setattr(clip._Trainer, "train_step", real)
    train_clip(corpus(), TINY, tmp_path)
    one, other = (torch.load(each / "checkpoint.pt", weights_only=True) for each in (run, tmp_path))
    for part in ("averaged", "averaged_phi"):
        for name, value in one[part].items():
            torch.testing.assert_close(other[part][name], value, msg=name)


def test_a_run_goes_on_from_a_finished_model(run: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, start=str(run / "model"), steps=1, text_steps=0, sentences=(), peak=1e-9)
    train_clip(corpus(), recipe, tmp_path)
    before, after = (load_embedder(f"open_clip:{each / 'model'}") for each in (run, tmp_path))
    said = [Item(text="red circle")]
    np.testing.assert_allclose(before.encode_query(said), after.encode_query(said), atol=2e-2)
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (run / "model" / "tokenizer.json").read_bytes()


def test_a_start_that_is_missing_or_of_another_shape_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at .*nowhere to start from.*`train clip` made"):
        train_clip(corpus(), replace(TINY, start="nowhere"), tmp_path / "a")
    wide = {**TINY.text, "width": 48, "heads": 3}
    with pytest.raises(ModelError, match="another shape than the recipe's"):
        train_clip(corpus(), replace(TINY, start=str(run / "model"), text=wide), tmp_path / "b")


def test_a_caption_is_right_for_every_picture_it_is_true_of() -> None:
    data = Captions(Templates({"{maker}": 1.0}), "split")
    for record in corpus():
        data.add(record.document)
    rows = data.rows("train")
    assert {data.texts[number]: own.tolist() for number, own in data.true_of(rows).items()} == {
        "s": [0, 2, 4],
        "c": [1, 3, 5],
    }
    assert data.tags(0) == {"s"}
    stage = TextStage(data, rows, np.eye(8, dtype=np.float32), torch.zeros(2, 4, dtype=torch.int64), ClipRecipe())

    class Says:
        def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
            return torch.nn.functional.normalize(torch.tensor([[1.0, 0, 1, 0, 1, 0, 0, 0]]), dim=-1)

    loss = stage.contrast(Says(), np.array([0]), torch.tensor(100.0))
    assert float(loss) == pytest.approx(np.log(3), abs=1e-4)


def test_words_alone_search_without_the_picture() -> None:
    batch = ComposedBatch([["", ""], ["", ""]], np.array([0, 1]), np.array([1, 1]), 1)
    said, read = torch.tensor([[1.0, 0], [1.0, 0]]), torch.tensor([[0, 1.0], [0, 1.0]])
    found = queries_of(said, batch, read, torch.full((2, 1), 0.5))
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))


def test_softened_targets_keep_what_is_right_first_and_give_kin_a_share() -> None:
    right = torch.eye(3, dtype=torch.bool)
    likeness = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(soften(right, likeness, 0.0), torch.eye(3))
    softened = soften(right, likeness, 0.3)
    assert softened[0, 0] > softened[0, 1] > softened[0, 2]
    torch.testing.assert_close(softened.sum(1), torch.ones(3))
    torch.testing.assert_close(softened, softened.T)


def test_spoiling_repeats_for_a_seed_and_leaves_the_rest_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), np.uint8)
    plain, once, again = (
        augment(pixels, np.random.default_rng(3), torch.device("cpu"), spoil) for spoil in (0.0, 0.3, 0.3)
    )
    assert torch.equal(once, again)
    same = (plain == once).flatten(1).all(1)
    assert 5 <= int(same.sum()) <= 25  # 0.7 ** 3 of 40 are left alone
