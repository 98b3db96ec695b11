"""Training one model for texts, images and both: tasks, gradients, stages, and a result that is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_corpus import corpus, dying
from tiny_mllm import tiny_mllm
from typer.testing import CliRunner

from indexer.corpus.records import Record
from indexer.embed import load_embedder
from indexer.embed.mllm.loading import load_model
from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.types import Document, Item, Modality
from pipelines.cli.app import app
from pipelines.train.common.captions import Captions, Templates
from pipelines.train.common.contrast import contrast
from pipelines.train.common.differences import Differences
from pipelines.train.common.gradient_cache import backward
from pipelines.train.common.run import RunFolder
from pipelines.train.common.tasks import NONE, Task, TaskSampler
from pipelines.train.unified import train as program
from pipelines.train.unified.model import UnifiedRecipe, thumbnails
from pipelines.train.unified.train import _Trainer, train_unified

RECIPE = UnifiedRecipe(
    text={
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "initializer_range": 0.2,
    },
    vision={
        "embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 1, "initializer_range": 0.2,
    },
    vocabulary=320, image_pixels=256, split_field="split", look="maker", keep=0.4, sentences=("{text}", "but {text}"),
    instructions={"text-image": ["find the drawing"], "fused-image": ["find it changed so"]}, told=0.5, steps=4,
    hard_steps=4, mine_depth=3, batch=14, warmup=1, peak=3e-3, tokens=100, evaluate_every=3, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    measured = train_unified(corpus(), RECIPE, folder)
    assert {"train_r10", "validation_r10", "train_fused_r1", "train_fused_r10"} <= measured.keys()
    return folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("weights", "averaged") for name, value in found[part].items()}


def captions(times: int = 1) -> Captions:
    data = Captions(Templates({"{text}": 0.7, "a {text}": 0.3}), "split", "maker")
    for record in corpus() * times:
        data.add(record.document)
    return data


def made_sampler(looks: bool = False) -> TaskSampler:
    data = captions(1 + looks)
    rows = data.rows("train")
    features = thumbnails([np.asarray((2 * corpus())[row].document.image) for row in rows])
    differences = Differences([data.names[row] for row in rows], rows, features, 0.4)
    return TaskSampler(
        data, rows, differences, shares=dict.fromkeys(Task, 1.0), instructions={"fused-image": ["told"]}, told=1.0,
        sentences=["but {text}"], looks=looks,
    )  # fmt: skip


@pytest.fixture
def sampler() -> TaskSampler:
    return made_sampler()


# -- Tasks


def test_a_batch_has_every_direction_and_its_own_answers_first(sampler: TaskSampler) -> None:
    pairs = sampler.draw(15, np.random.default_rng(0))
    kinds = {
        (query.modality, document.modality) for query, document in zip(pairs.queries, pairs.documents, strict=True)
    }
    assert kinds == {(task.query, task.document) for task in Task}
    assert pairs.right.shape == (15, 15)
    assert pairs.right.diagonal().all()
    assert all(query.row == document.row for query, document in zip(pairs.queries, pairs.documents, strict=True))
    assert all(document.instruction is None for document in pairs.documents)
    told = {query.instruction for query in pairs.queries if query.modality is Modality.FUSED}
    assert told == {"told", None}


def test_only_records_of_the_part_are_drawn(sampler: TaskSampler) -> None:
    rows = set(captions().rows("train").tolist())
    for seed in range(5):
        pairs = sampler.draw(20, np.random.default_rng(seed))
        for each in [*pairs.queries, *pairs.documents]:
            assert {each.row, each.image} - {NONE} <= rows
            assert "yellow" not in (each.text or "")


def test_a_query_with_both_parts_is_a_picture_and_the_words_it_lacks(sampler: TaskSampler) -> None:
    names = captions().names
    pairs = sampler.draw(40, np.random.default_rng(1))
    for query in pairs.queries:
        if query.modality is Modality.FUSED:
            before, after = names[query.image].split(), names[query.row].split()
            assert query.text == "but " + " ".join(word for word in after if word not in before)


def test_other_looks_of_what_is_meant_are_wrong_answers() -> None:
    pairs = made_sampler(looks=True).draw(15, np.random.default_rng(0))
    names = captions(2).names
    wanted = [query.row for query in pairs.queries if query.strict]
    more = pairs.documents[15:]
    assert more
    assert {names[document.row] for document in more} <= {names[row] for row in wanted}
    for place, query in enumerate(pairs.queries):
        for column, document in enumerate(more, 15):
            same = names[query.row] == names[document.row]
            assert document.row != query.row or not query.strict
            if query.strict and same:
                assert not pairs.right[place, column]


def test_what_is_right_too_is_no_wrong_answer(sampler: TaskSampler) -> None:
    data = captions()
    pairs = sampler.draw(60, np.random.default_rng(2))
    for i, query in enumerate(pairs.queries):
        for j, document in enumerate(pairs.documents):
            same = data.names[query.row] == data.names[document.row]  # each name is one image here
            assert pairs.right[i, j] == same, (query, document)


def test_a_caption_that_is_true_of_both_is_right_for_both() -> None:
    data = Captions(Templates({"{text}": 0.5, "{kind}": 0.5}), None)
    for name, kind in (("cat", "animal"), ("dog", "animal"), ("car", "thing")):
        data.add(Document(name, name, Image.new("RGB", (4, 4)), {"kind": kind}))
    sampler = TaskSampler(
        data, np.arange(3), None, shares={"image-text": 1, "text-image": 1}, instructions={}, told=0, sentences=[]
    )
    seen = set()
    for seed in range(10):
        pairs = sampler.draw(12, np.random.default_rng(seed))
        for i, query in enumerate(pairs.queries):
            for j, document in enumerate(pairs.documents):
                rows, said = {query.row, document.row}, {query.text, document.text}
                right = len(rows) == 1 or (rows == {0, 1} and "animal" in said)
                assert pairs.right[i, j] == right, (query, document)
                seen.add((query.modality, document.modality, len(rows), right))
    assert {(Modality.IMAGE, Modality.TEXT, 2, True), (Modality.TEXT, Modality.IMAGE, 2, True)} <= seen


def test_another_drawing_of_the_same_is_right_but_for_a_strict_query() -> None:
    data = Captions(Templates({"{text}": 1.0}), None)
    for name in ("a star", "a star", "a moon"):
        data.add(Document(name, name, Image.new("RGB", (4, 4))))
    rows = np.arange(3)
    differences = Differences(data.names, rows, thumbnails([np.zeros((4, 4, 3), np.uint8)] * 3), 0.4)
    sampler = TaskSampler(
        data, rows, differences, shares={"image-image": 1, "fused-image": 1, "text-image": 1}, instructions={}, told=0,
        sentences=["{text}"],
    )  # fmt: skip
    seen = {True: set(), False: set()}
    for seed in range(20):
        pairs = sampler.draw(12, np.random.default_rng(seed))
        for i, query in enumerate(pairs.queries):
            for j, document in enumerate(pairs.documents):
                if query.row != document.row and data.names[query.row] == data.names[document.row]:
                    seen[query.strict].add(bool(pairs.right[i, j]))
    assert seen == {True: {False}, False: {True}}


def test_references_are_among_the_pictures_that_texts_should_find(sampler: TaskSampler) -> None:
    pairs = sampler.draw(21, np.random.default_rng(0))
    references = {query.image for query in pairs.queries if query.strict}
    found = {
        document.image
        for query, document in zip(pairs.queries, pairs.documents, strict=True)
        if (query.modality, document.modality) == (Modality.TEXT, Modality.IMAGE)
    }
    assert found <= references


def test_mined_negatives_are_made_of_the_same_as_the_right_answer(sampler: TaskSampler) -> None:
    mined = np.full((8, 2), NONE)
    mined[0] = [1, 2]
    mined[3, 0] = 5
    pairs = sampler.draw(40, np.random.default_rng(0), mined, hard=2)
    own, more = pairs.documents[:40], pairs.documents[40:]
    wanted = sorted((d.modality.value, h) for d in own for h in mined[d.row] if h != NONE)
    assert sorted((each.modality.value, each.row) for each in more) == wanted
    assert pairs.right.shape == (40, 40 + len(more))


def test_tasks_that_make_no_sense_are_refused() -> None:
    data = captions()
    make = dict(instructions={}, told=0.0, sentences=["{text}"])
    with pytest.raises(UnknownNameError, match="task 'text-video' is not known.*Known: text-image, image-text"):
        TaskSampler(data, data.rows("train"), None, shares={"text-video": 1}, **make)
    with pytest.raises(CallError, match="No task has a share"):
        TaskSampler(data, data.rows("train"), None, shares={"text-image": 0}, **make)
    with pytest.raises(CallError, match="need pairs of similar captions"):
        TaskSampler(data, data.rows("train"), None, shares={"fused-image": 1}, **make)


# -- Loss and gradients


def test_the_contrast_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (
        torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal(s)), dim=1) for s in ((3, 4), (5, 4))
    )
    right = torch.eye(3, 5, dtype=torch.bool)
    right[0, 1] = True
    exp = np.exp((queries @ documents.T).numpy() / 0.1)
    exp[0, 1] = 0
    forward = -np.log(exp[range(3), range(3)] / exp.sum(1)).mean()
    back = -np.log(exp[range(3), range(3)] / exp[:, :3].sum(0)).mean()
    assert contrast(queries, documents, right, 0.1).item() == pytest.approx((forward + back) / 2)


def test_cached_gradients_are_the_plain_ones_with_dropout_too() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    parts = [torch.randn(rows, 6) for rows in (5, 2, 7)]

    def loss(vectors: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(vectors, dim=1)
        return contrast(unit[:7], unit[7:], torch.eye(7, dtype=torch.bool), 0.1)

    found = {}
    for cached in (False, True):
        model.zero_grad()
        torch.manual_seed(1)
        value = backward(model, parts, loss, cached=cached)
        found[cached] = (value, torch.cat([each.grad.ravel() for each in model.parameters()]), torch.rand(1))
    assert found[True][0] == pytest.approx(found[False][0], abs=1e-6)
    torch.testing.assert_close(found[True][1], found[False][1], atol=1e-6, rtol=1e-4)
    assert found[True][1].abs().max() > 1e-3
    assert torch.equal(found[True][2], found[False][2]), "what is random goes on alike"


def test_a_step_with_cached_gradients_is_the_plain_step(tmp_path: Path) -> None:
    weights = []
    for cached in (False, True):
        recipe = replace(RECIPE, cache_gradients=cached, weight_decay=0.0)
        trainer = _Trainer(corpus(), recipe, RunFolder.start(tmp_path / str(cached), recipe))
        trainer.train_step()
        weights.append(torch.cat([each.grad.ravel() for each in trainer.weights.values()]))
    assert weights[0].abs().max() > 1e-3
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-3)


def test_cached_gradients_hold_one_part_at_a_time() -> None:
    """Activations of the other parts are not kept: none of their tensors is alive while a part goes back."""
    alive, most = set(), []

    class Held(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, part):
            ctx.part = part
            if ctx.needs_input_grad[0]:
                alive.add(part)
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            most.append(len(alive))
            alive.discard(ctx.part)
            return gradient * 2, None

    weight = torch.ones(3, requires_grad=True)
    for cached, wanted in ((True, 1), (False, 4)):
        most.clear()
        backward(
            lambda part: Held.apply(weight * part, part)[None], range(4), lambda v: v.square().sum(), cached=cached
        )
        assert max(most) == wanted


# -- Runs


def test_a_run_leaves_metrics_a_plot_and_a_model_that_is_used(trained: Path) -> None:
    assert [record["step"] for record in RunFolder(trained).metrics()] == [3, 4, 6, 8]
    assert (trained / "metrics.png").stat().st_size > 5000
    embedder = load_embedder(f"mllm:{trained / 'model'}")
    assert embedder.dim == 32
    assert embedder.spec.fused_instruction == RECIPE.fused_instruction
    picture = corpus()[0].document.image
    rows = embedder.encode_query([Item("red square"), Item(image=picture), Item("but blue", picture)])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    kept = state(trained)["averaged.language_model.norm.weight"]
    np.testing.assert_allclose(embedder._model.language_model.norm.weight.detach(), kept, atol=1e-3)
    assert load_model(trained / "model", torch.float16).dtype == torch.float16


def test_what_is_trained_and_what_is_used_give_the_same_vectors(trained: Path) -> None:
    """The trainer's own encoding against the embedder's, on the same weights."""
    trainer = _Trainer(corpus(), RECIPE, RunFolder(trained))
    trainer.load_state(RunFolder(trained).load())
    pairs = trainer.sampler.draw(14, np.random.default_rng(0))
    embedder = load_embedder(f"mllm:{trained / 'model'}")
    with trainer.averaged():
        queries = trainer._vectors([replace(each, instruction=None) for each in pairs.queries], program.Role.QUERY)
        documents = trainer._vectors(pairs.documents, program.Role.DOCUMENT)

    def items(readings):
        pictures = [None if each.image == NONE else corpus()[each.image].document.image for each in readings]
        return [Item(each.text, picture) for each, picture in zip(readings, pictures, strict=True)]

    assert (embedder.encode_query(items(pairs.queries)) * queries).sum(1).min() > 0.999  # half precision
    assert (embedder.encode_document(items(pairs.documents)) * documents).sum(1).min() > 0.999


@pytest.mark.parametrize(("call", "kept"), [(6, 4), (8, 6)])
def test_a_run_that_was_stopped_ends_where_an_unstopped_one_does_bit_for_bit(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, kept: int
) -> None:
    real = _Trainer.train_step
    monkeypatch.setattr(_Trainer, "train_step", dying(real, call))
    with pytest.raises(KeyboardInterrupt):
        train_unified(corpus(), RECIPE, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == kept
    monkeypatch.setattr(_Trainer, "train_step", real)
    train_unified(corpus(), RECIPE, tmp_path)
    resumed = state(tmp_path)
    for name, value in state(trained).items():
        assert torch.equal(resumed[name], value), name


def test_the_loss_falls(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=30, hard_steps=0, evaluate_every=100, augment=False, temperature=0.1, tokens=4096)
    trainer = _Trainer(corpus(), recipe, RunFolder.start(tmp_path, recipe))
    losses = [trainer.train_step()["loss"] for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_arithmetic_and_attention_may_be_chosen_and_the_step_stays_near(tmp_path: Path) -> None:
    losses = []
    for number, changes in enumerate(({}, {"attention": "eager"}, {"attention": "eager", "bf16": True})):
        recipe = replace(RECIPE, **changes)
        losses.append(_Trainer(corpus(), recipe, RunFolder.start(tmp_path / str(number), recipe)).train_step()["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=0.1)
    assert losses[2] != losses[1]


def test_mined_negatives_are_what_texts_find_and_should_not(trained: Path) -> None:
    trainer = _Trainer(corpus(), RECIPE, RunFolder(trained))
    mined = trainer._mine()
    assert mined.shape == (8, 3)
    for row in trainer.rows:
        assert set(mined[row]) <= set(trainer.rows) - {row}
        assert len(set(mined[row])) == 3
    outside = np.setdiff1d(np.arange(8), trainer.rows)
    assert (mined[outside] == NONE).all()
    stored = torch.load(trained / "checkpoint.pt", weights_only=True)["mined"]
    assert stored.shape == (8, 3)


def test_only_the_part_to_train_on_is_trained_on(trained: Path, tmp_path: Path) -> None:
    """Other images of the other part change nothing."""
    records = [
        Record(replace(each.document, image=Image.new("RGB", (16, 16), "black")), "")
        if each.document.fields["split"] == "validation"
        else each
        for each in corpus()
    ]
    train_unified(records, RECIPE, tmp_path)
    for name, value in state(trained).items():
        assert torch.equal(state(tmp_path)[name], value), name


def test_pictures_keep_their_shape_and_a_bad_one_is_left_out(tmp_path: Path) -> None:
    records = corpus()
    records[0] = Record(replace(records[0].document, image=Image.new("RGB", (40, 20), "red")), "")
    records[1] = Record(replace(records[1].document, image=b"no picture"), "")
    recipe = replace(RECIPE, image_pixels=1024, split_field=None, steps=2, hard_steps=1)
    trainer = _Trainer(records, recipe, RunFolder.start(tmp_path, recipe))
    assert 1 not in trainer.rows
    assert trainer.pictures[0].shape == (32, 48, 3)
    assert np.isfinite(trainer.train_step()["loss"])
    assert trainer.evaluate().keys() >= {"train_r10"}


def test_it_goes_on_from_a_checkpoint_whose_spec_stays(tmp_path: Path) -> None:
    start = tiny_mllm(tmp_path / "start", "qwen3_vl")
    recipe = replace(RECIPE, start=str(start), steps=2, hard_steps=0)
    train_unified(corpus(), recipe, tmp_path / "run")
    one, other = load_embedder(f"mllm:{start}"), load_embedder(f"mllm:{tmp_path / 'run' / 'model'}")
    assert one.spec == other.spec
    assert (one.encode_document([Item("red")]) * other.encode_document([Item("red")])).sum() < 0.99999


def test_a_lora_is_trained_and_merged_when_it_is_used(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs peft, of the extra mllm")
    start = tiny_mllm(tmp_path / "start")
    recipe = replace(RECIPE, start=str(start), lora_rank=2, steps=3, hard_steps=1, peak=0.05)
    train_unified(corpus(), recipe, tmp_path / "run")
    folder = tmp_path / "run" / "model"
    assert sorted(each.name for each in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "underdrawing.json"
    ]  # fmt: skip
    base, trained = load_embedder(f"mllm:{start}"), load_embedder(f"mllm:{folder}")
    items = [Item("red square"), Item("but blue", corpus()[0].document.image)]
    assert (base.encode_document(items) * trained.encode_document(items)).sum(1).max() < 0.9999
    with pytest.raises(CallError, match="is a LoRA itself"):
        train_unified(corpus(), replace(recipe, start=str(folder)), tmp_path / "again")


def test_what_cannot_be_trained_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UnknownNameError, match="attention 'fast' is not known. Known: sdpa, eager"):
        train_unified(corpus(), replace(RECIPE, attention="fast"), tmp_path / "e")
    silent = [Record(Document("silent", None, Image.new("RGB", (4, 4))), "")]
    with pytest.raises(CallError, match="no document with both"):
        train_unified(silent, RECIPE, tmp_path / "a")
    with pytest.raises(CallError, match="A LoRA adapts an existing model"):
        train_unified(corpus(), replace(RECIPE, lora_rank=4), tmp_path / "b")
    with pytest.raises(ModelError, match="is neither a folder nor a hub id"):
        train_unified(corpus(), replace(RECIPE, start="/nowhere"), tmp_path / "c")
    apart = [each for each in corpus() if each.document.id in ("red-square", "blue-circle")]
    with pytest.raises(CallError, match="No two of the 2 captions"):
        train_unified(apart, RECIPE, tmp_path / "d")
    with pytest.raises(CallError, match="peak differ"):
        train_unified(corpus(), replace(RECIPE, peak=0.1), trained)


def test_the_command_trains_and_says_where_the_model_is(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for record in corpus():
        record.document.image.save(photos / f"{record.document.id}.png")
        (photos / f"{record.document.id}.txt").write_text(record.document.text)
    values = {name: getattr(RECIPE, name) for name in ("text", "vision", "vocabulary", "image_pixels", "keep")}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    arguments = ["train", "unified", photos, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.json", "--steps", 1,
                 "--hard-steps", 1, "--batch", 7, "--cache-gradients"]  # fmt: skip
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    assert f"The model is in {tmp_path / 'run' / 'model'}" in done.stdout
    assert "train_fused_r10" in done.output
    asked = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (asked["steps"], asked["hard_steps"], asked["batch"], asked["cache_gradients"]) == (1, 1, 7, True)
