"""Training a generator on a handful of shapes: the text encoder is the encoder, it resumes, and others can load it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_corpus import corpus, draw, dying
from tiny_models import DIM, WIDTH, native_clip, published_phi, tiny_clip, tiny_inversion
from typer.testing import CliRunner

from indexer.embed import load_embedder
from indexer.embed.textual_inversion import PseudoWordReader, load_inversion
from indexer.errors import CallError
from pipelines.cli.app import app
from pipelines.train.common.captions import square
from pipelines.train.common.run import RunFolder
from pipelines.train.generator import autoencoder
from pipelines.train.generator import train as generator
from pipelines.train.generator.autoencoder import AutoencoderRecipe, encode_latents, reconstruction, train_autoencoder
from pipelines.train.generator.model import GeneratorRecipe, build_unet, text_encoder_of
from pipelines.train.generator.train import train_generator
from retrieval.providers.generation import GenerateOptions, PseudoTargetRequest
from retrieval.providers.generation.diffusion import PseudoTargetGenerator

# The schedulers of diffusers hand tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CODEC = AutoencoderRecipe(
    model={
        "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8], "num_encoder_blocks": [1, 1],
        "num_decoder_blocks": [1, 1], "latent_channels": 4,
    },
    steps=6, batch=4, warmup=2, evaluate_every=3,
)  # fmt: skip
UNET = {
    "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "attention_head_dim": 2,
    "norm_num_groups": 4,
}  # fmt: skip
TEXTS = ["red square", "", "a blue circle at night, and so on", "x " * 40, "[END] red"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its inversion."""
    parent = tmp_path_factory.mktemp("models")
    tiny_clip(parent)
    tiny_inversion().save(parent / "inversion")
    return parent


@pytest.fixture(scope="module")
def recipe(folder: Path) -> GeneratorRecipe:
    codec = {name: getattr(CODEC, name) for name in ("model", "steps", "batch", "warmup", "evaluate_every")}
    return GeneratorRecipe(
        autoencoder=codec, unet=UNET, model=f"open_clip:{folder / 'model'}", inversion=str(folder / "inversion"),
        size=16, context=12, split_field="split", steps=4, batch=6, warmup=1, evaluate_every=2, draw_steps=2, shifts=1,
        look="maker",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(recipe: GeneratorRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(run / "cache"))
        measured = train_generator(corpus(), recipe, run)
    assert measured.keys() == {"validation_loss", "train_r10", "validation_r10"}
    return run


def state(run: Path) -> dict[str, torch.Tensor]:
    found = torch.load(run / "checkpoint.pt", weights_only=True)
    parts = [part for part in found if part not in ("step", "optimiser")]
    return {f"{part}.{name}": value for part in parts for name, value in found[part].items()}


def pixels() -> np.ndarray:
    return np.stack([square(record.document.image, 16) for record in corpus()])


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_the_text_encoder_has_the_hidden_states_of_the_tower(activation: str, tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["quick_gelu"] = activation == "quick_gelu"
    file.write_text(json.dumps(config))
    embedder = load_embedder(f"open_clip:{folder}")
    encoder, tokenizer = text_encoder_of(embedder, 12)
    assert encoder.config.hidden_act == activation
    reader = PseudoWordReader(encoder.get_input_embeddings(), tokenizer, 12)
    tokens, _ = reader.tokenize("{text}", TEXTS)
    theirs = []
    handle = embedder.model.text.ln_final.register_forward_hook(lambda *each: theirs.append(each[2]))
    whole = torch.nn.functional.pad(tokens, (0, embedder.model.text.context_length - 12))
    with torch.inference_mode():
        vectors = embedder.model.encode_text(whole)
        states = encoder(tokens)
    handle.remove()
    torch.testing.assert_close(states.last_hidden_state, theirs[0][:, :12], atol=1e-5, rtol=0)
    assert states.last_hidden_state.std() > 0.1
    projection = embedder.model.text.text_projection
    with torch.inference_mode():
        torch.testing.assert_close(states.pooler_output @ projection, vectors, atol=1e-5, rtol=0)


def test_a_tower_that_is_not_of_clips_kind_is_refused(tmp_path: Path) -> None:
    native = load_embedder(f"open_clip:{native_clip(tmp_path / 'native', custom=True)}")
    with pytest.raises(CallError, match="cannot be written as transformers' CLIPTextModel"):
        text_encoder_of(native, 12)
    folder = tiny_clip(tmp_path / "last")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"]["pool_type"] = "last"
    file.write_text(json.dumps(config))
    with pytest.raises(CallError, match="a causal text encoder"):
        text_encoder_of(load_embedder(f"open_clip:{folder}"), 12)


def test_an_autoencoder_learns_and_leaves_latents_of_unit_variance(tmp_path: Path) -> None:
    images = pixels()
    model = train_autoencoder(images[:6], images[6:], replace(CODEC, steps=60, evaluate_every=30), tmp_path)
    records = RunFolder(tmp_path).metrics()
    assert [record["step"] for record in records] == [30, 60]
    assert records[1]["psnr"] > records[0]["psnr"]
    loaded = diffusers.AutoencoderTiny.from_pretrained(model)
    scaled = loaded.config.scaling_factor * encode_latents(loaded, images[:6])
    assert scaled.shape == (6, 4, 8, 8)
    assert scaled.std() == pytest.approx(1, abs=1e-3)
    assert train_autoencoder(images[:6], images[6:], replace(CODEC, steps=60, evaluate_every=30), tmp_path) == model


def test_an_autoencoders_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels()
    train_autoencoder(images, images, CODEC, tmp_path / "whole")
    real = autoencoder._Trainer.train_step
    monkeypatch.setattr(autoencoder._Trainer, "train_step", dying(real, 5))
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(images, images, CODEC, tmp_path / "stopped")
    monkeypatch.setattr(autoencoder._Trainer, "train_step", real)
    train_autoencoder(images, images, CODEC, tmp_path / "stopped")
    resumed = state(tmp_path / "stopped")
    for name, value in state(tmp_path / "whole").items():
        assert torch.equal(resumed[name], value), name


def test_the_error_of_edges_counts_beside_that_of_pixels() -> None:
    flat, edge = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 1
    assert reconstruction(flat + 0.5, flat, 1.0) == pytest.approx(0.5)
    assert reconstruction(edge, flat, 1.0) == pytest.approx(0.5 + 1 / 3)
    assert reconstruction(edge.mT, flat, 3.0) == pytest.approx(0.5 + 3 / 3)


def test_a_shifted_picture_leaves_white_behind() -> None:
    dark = np.zeros((1, 4, 4, 3), np.uint8)
    moved = generator._shifted(dark, 1, -2)[0, ..., 0]
    assert (moved == 0).tolist() == [[False, True, True, True]] * 2 + [[False] * 4] * 2


def test_a_run_leaves_metrics_a_plot_and_grids(trained: Path) -> None:
    assert [record["step"] for record in RunFolder(trained).metrics()] == [2, 4]
    assert (trained / "metrics.png").stat().st_size > 5000
    for step in (2, 4):
        with Image.open(trained / f"samples-{step:06d}.png") as grid:
            assert grid.size == (12 * 16, 2 * 3 * 16)
            top = np.asarray(grid)[:16, :16]
    known = [square(record.document.image, 16) for record in corpus()]
    assert any((top == each).all() for each in known)


def test_a_run_that_was_stopped_ends_where_an_unstopped_one_does_bit_for_bit(
    trained: Path, recipe: GeneratorRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generator._Trainer.train_step
    monkeypatch.setattr(generator._Trainer, "train_step", dying(real, 4))
    with pytest.raises(KeyboardInterrupt):
        train_generator(corpus(), recipe, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.setattr(generator._Trainer, "train_step", real)
    train_generator(corpus(), recipe, tmp_path)
    resumed = state(tmp_path)
    for name, value in state(trained).items():
        assert torch.equal(resumed[name], value), name


def test_the_words_are_trained_along_unless_told_otherwise(
    trained: Path, recipe: GeneratorRecipe, folder: Path, tmp_path: Path
) -> None:
    given = load_inversion(folder / "inversion").phi.state_dict()
    moved = state(trained)
    assert any(not torch.equal(moved[f"phi.{name}"], value) for name, value in given.items())
    train_generator(corpus(), replace(recipe, train_inversion=False, steps=1), tmp_path)
    kept = state(tmp_path)
    for name, value in given.items():
        assert torch.equal(kept[f"phi.{name}"], value)
        torch.testing.assert_close(kept[f"averaged_phi.{name}"], value)


def test_diffusers_own_pipeline_loads_the_folder_and_draws(trained: Path) -> None:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(trained / "model", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to("cpu", torch.float32)
    drawn = pipeline("red square", num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    assert drawn.shape == (1, 16, 16, 3)
    assert np.isfinite(drawn).all()
    assert not list((trained / "model").rglob("*.bin"))
    config = json.loads((trained / "model" / "model_index.json").read_text())
    assert config["_class_name"] == "StableDiffusionPipeline"


def test_our_generator_loads_the_folder_and_draws_as_the_trainer_did(trained: Path, recipe: GeneratorRecipe) -> None:
    loaded = PseudoTargetGenerator.load(trained / "model")
    assert loaded.feature_models == [(recipe.model, True)]
    assert loaded.defaults == GenerateOptions(steps=2, guidance=1.0, size=16)
    embedder = load_embedder(recipe.model)
    features = generator._features(embedder, pixels()).numpy()
    [drawing] = loaded.generate([PseudoTargetRequest("blue", (features[0],))], GenerateOptions())
    data = generator.CaptionedImages(corpus(), 16, generator.Templates({"{text}": 1.0}), "split", "maker")
    rows = (data.rows("train"), data.rows("validation"))
    trainer = generator._Trainer(data, *rows, recipe, embedder, trained / "autoencoder" / "model")
    trainer.load_state(torch.load(trained / "checkpoint.pt", weights_only=True))
    [expected] = trainer._generator.generate([PseudoTargetRequest("blue", (features[0],))], GenerateOptions())
    np.testing.assert_allclose(
        np.asarray(drawing.images[0]).astype(int), np.asarray(expected.images[0]).astype(int), atol=3
    )


def test_drawing_follows_the_flow_that_training_asks_for(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denoiser that knows the answer, (mixed - clean) / level, brings any noise to what is clean."""
    loaded = PseudoTargetGenerator.load(trained / "model")
    pipeline = loaded._pipeline
    clean = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def knows(mixed, time, **_):
        return ((mixed - clean) / (time / pipeline.scheduler.config.num_train_timesteps),)

    monkeypatch.setattr(pipeline.unet, "forward", knows)
    feature = np.ones(DIM, np.float32) / DIM**0.5
    [drawing] = loaded.generate([PseudoTargetRequest("blue", (feature,))], GenerateOptions(steps=8))
    decoded = pipeline.vae.decode(clean / pipeline.vae.config.scaling_factor).sample.detach()
    expected = (decoded[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).numpy() * 255
    np.testing.assert_allclose(np.asarray(drawing.images[0]), expected, atol=2)


def test_prompts_are_of_all_four_kinds_and_no_caption_makes_a_place_for_a_word(
    trained: Path, recipe: GeneratorRecipe
) -> None:
    records = corpus()
    records[0] = replace(records[0], document=replace(records[0].document, text="red square {word}"))
    data = generator.CaptionedImages(records, 16, generator.Templates({"{text}": 1.0}), "split")
    rows = (data.rows("train"), data.rows("validation"))
    many = replace(recipe, batch=400, look=None)
    trainer = generator._Trainer(data, *rows, many, load_embedder(recipe.model), trained / "autoencoder" / "model")
    drawn, worded, prompts = trainer._draw(np.random.default_rng(0))
    assert set(map(len, prompts)) == {1, 2}
    kinds = [
        "nothing" if pieces == [""] else "caption" if len(pieces) == 1 else "own" if a == b else "other"
        for pieces, a, b in zip(prompts, drawn, worded, strict=True)
    ]
    shares = {kind: kinds.count(kind) / 400 for kind in ("other", "own", "nothing", "caption")}
    assert list(shares.values()) == pytest.approx([0.4, 0.4, 0.1, 0.1], abs=0.08)
    assert set(drawn.tolist()) | set(worded.tolist()) <= set(rows[0].tolist())


def test_an_inversion_of_another_model_is_refused_with_the_numbers(recipe: GeneratorRecipe, tmp_path: Path) -> None:
    tiny_inversion(feature=8).save(tmp_path / "inversion")
    with pytest.raises(
        CallError, match=f"turns 8 numbers into pseudo-words of {WIDTH}; .* has features of {DIM} and pseudo-words"
    ):
        train_generator(corpus(), replace(recipe, inversion=str(tmp_path / "inversion"), steps=1), tmp_path / "run")
    with pytest.raises(CallError, match="fake:8 has no text encoder that reads pseudo-words"):
        train_generator(corpus(), replace(recipe, model="fake:8"), tmp_path / "fake")


def test_the_command_trains_from_a_published_inversion_and_says_where_the_generator_is(
    recipe: GeneratorRecipe, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in ("red", "green", "blue"):
        draw(colour, "square").save(photos / f"{colour}.png")
        (photos / f"{colour}.txt").write_text(f"{colour} square")
    settings = {"autoencoder": recipe.autoencoder, "unet": UNET, "size": 16, "context": 12, "warmup": 1, "batch": 3}
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    arguments = ["train", "generator", photos, "--out", tmp_path / "run", "--model", recipe.model, "--steps", 2,
                 "--inversion", published_phi(tmp_path / "phi.pt"), "--recipe", tmp_path / "recipe.json",
                 "--batch", 4]  # fmt: skip
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    assert f"The generator is in {tmp_path / 'run' / 'model'}" in done.stdout
    assert "validation_r10" in done.output
    loaded = PseudoTargetGenerator.load(tmp_path / "run" / "model")
    assert loaded.feature_models == [(recipe.model, True)]  # trained on unit features, whatever it read before


def test_training_goes_on_from_a_finished_generator(recipe: GeneratorRecipe, trained: Path, tmp_path: Path) -> None:
    goes_on = replace(recipe, start=str(trained / "model"), peak=0.0, weight_decay=0.0, steps=2)
    train_generator(corpus(), goes_on, tmp_path)
    assert not (tmp_path / "autoencoder").exists()
    for part in ("unet", "vae"):
        before, after = (
            load_file(run / "model" / part / "diffusion_pytorch_model.safetensors") for run in (trained, tmp_path)
        )
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name], atol=1e-3, rtol=1e-3)


def test_a_start_that_cannot_be_used_is_refused(recipe: GeneratorRecipe, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="There is no generator at nowhere"):
        train_generator(corpus(), replace(recipe, start="nowhere"), tmp_path / "a")
    with pytest.raises(CallError, match=f"reads hidden states of {WIDTH} numbers; .* have {WIDTH + 1}"):
        build_unet(replace(recipe, start=str(trained / "model")), 4, 8, WIDTH + 1)
