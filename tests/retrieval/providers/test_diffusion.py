"""Generating images with tiny random pipelines in the published layouts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import DIM, WIDTH, WIDTH_2, save_generator, tiny_inversion, tiny_pipeline

from indexer.errors import CallError, GeneratorError, ModelError, QueryError, UnknownNameError
from retrieval.providers.generation import GenerateOptions, PseudoTarget, PseudoTargetRequest
from retrieval.providers.generation.diffusion import GeneratorSpec, PseudoTargetGenerator, WordSource, _pseudo_target
from retrieval.providers.generation.presets import load_preset

# The schedulers of diffusers hand tensors to NumPy in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LAYOUTS = {"sd15": 1, "lcm": 1, "sdxl": 2, "turbo": 2}
FREE = {"turbo": {"steps": 2, "guidance": 0.0}}
"""Options of those that are drawn without guidance."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each layout; their inversions read what they are given."""
    parent = tmp_path_factory.mktemp("generators")
    return {name: save_generator(parent / name, name, **FREE.get(name, {})) for name in LAYOUTS}


@pytest.fixture(scope="module")
def generators(folders: dict[str, Path]) -> dict[str, PseudoTargetGenerator]:
    return {name: PseudoTargetGenerator.load(folder) for name, folder in folders.items()}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def generator(generators: dict[str, PseudoTargetGenerator], layout: str) -> PseudoTargetGenerator:
    return generators[layout]


@pytest.fixture
def plain(generators: dict[str, PseudoTargetGenerator]) -> PseudoTargetGenerator:
    return generators["sd15"]


def request(text: str, seed: int = 0, encoders: int = 1) -> PseudoTargetRequest:
    rng = np.random.default_rng(seed)
    return PseudoTargetRequest(text, tuple(3 * rng.standard_normal(DIM).astype(np.float32) for _ in range(encoders)))


def pixels(drawing: object) -> np.ndarray:
    assert drawing.failed is None
    return np.stack([np.asarray(image) for image in drawing.images]).astype(int)


def stock(layout: str, prompts: list[str], *, pad: int | None = None, **options: object) -> np.ndarray:
    """What the pipeline itself draws of texts, from the noise that we use; `pad` fills the prompts of all encoders."""
    pipeline = tiny_pipeline(layout)
    for tokenizer in (pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)):
        if pad is not None and tokenizer is not None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    pipeline.set_progress_bar_config(disable=True)
    seed, images = options.pop("seed"), options.pop("num_images_per_prompt")
    sources = [torch.Generator().manual_seed(1000 * seed + n) for _ in prompts for n in range(images)]
    noise = torch.stack([torch.randn(4, 8, 8, generator=source) for source in sources])
    drawn = pipeline(
        prompt=prompts, latents=noise, generator=sources, num_images_per_prompt=images, output_type="np", **options
    ).images
    return (drawn * 255).round().astype(int).reshape(len(prompts), images, 16, 16, 3)


@pytest.mark.parametrize("negative", [None, "a dog"])
def test_with_a_known_word_it_draws_what_the_pipeline_draws_of_the_text(
    layout: str, negative: str | None, tmp_path: Path
) -> None:
    guidance = FREE.get(layout, {"guidance": 4.0})["guidance"]
    generator = PseudoTargetGenerator.load(save_generator(tmp_path, layout, word="cat"))
    options = GenerateOptions(steps=3, guidance=guidance, images=2, seed=5, negative=negative)
    requests = [request(text, encoders=LAYOUTS[layout]) for text in ("is red", "has {word} and $ " * 50)]
    told = {} if layout == "lcm" else {"negative_prompt": None if negative is None else [negative] * 2}
    texts = [f"a photo of cat that {each.text}" for each in requests]
    expected = stock(
        layout, texts, guidance_scale=guidance, num_inference_steps=3, seed=5, num_images_per_prompt=2, **told
    )
    drawn = np.stack([pixels(each) for each in generator.generate(requests, options)])
    np.testing.assert_allclose(drawn, expected, atol=1)
    assert drawn.std() > 5


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_prompts_are_filled_with_the_id_that_the_denoiser_was_trained_with(name: str, tmp_path: Path) -> None:
    folder = save_generator(tmp_path, name, word="cat")
    spec = GeneratorSpec.read(folder)
    drawn = {}
    for pad in (None, 0):
        generator = PseudoTargetGenerator.load(folder, replace(spec, pad_token=pad))
        [drawing] = generator.generate(
            [request("is red", encoders=LAYOUTS[name])], GenerateOptions(steps=3, guidance=1.0)
        )
        drawn[pad] = pixels(drawing)
        texts = ["a photo of cat that is red"]
        told = {"guidance_scale": 1.0, "num_inference_steps": 3, "seed": 0, "num_images_per_prompt": 1}
        np.testing.assert_allclose(drawn[pad], stock(name, texts, pad=pad, **told)[0], atol=1)
    assert np.abs(drawn[None] - drawn[0]).max() > 3


def test_the_settings_of_cigs_released_code_are_a_preset(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    words = json.loads((folder / "underdrawing.json").read_text())["words"]
    (folder / "underdrawing.json").write_text(json.dumps({"preset": "cig-paper", "words": words, "size": 16}))
    spec = GeneratorSpec.read(folder)
    assert (spec.steps, spec.guidance, spec.retries, spec.pad_token, spec.size) == (50, 5.0, 5, 0, 16)
    assert load_preset("cig-paper").size == 512
    weights = {pair: (each.inversion, each.pseudo_target) for pair, each in load_preset("cig-paper").weights.items()}
    assert (weights["circo", "test"], weights["cirr", "test1"]) == ((0.7, 0.3), (0.5, 0.5))
    (folder / "underdrawing.json").write_text(json.dumps({"preset": "cig-papers", "words": words}))
    with pytest.raises(UnknownNameError, match=r"cig-papers.*cig-paper"):
        GeneratorSpec.read(folder)


def test_a_black_image_is_generated_again_with_the_next_seed(folders: dict[str, Path], monkeypatch) -> None:
    folder = folders["sd15"]
    generator = PseudoTargetGenerator.load(folder, replace(GeneratorSpec.read(folder), retries=2))
    drawn, seeds = generator._sample, []

    def black_at_first(requests, options):
        seeds.append((options.seed, [each.text for each in requests]))
        made = drawn(requests, options)
        failed = {7: ("red", "blue"), 8: ("blue",), 9: ("blue",)}[options.seed]
        return [
            PseudoTarget((), "black") if each.text in failed else own for each, own in zip(requests, made, strict=True)
        ]

    monkeypatch.setattr(generator, "_sample", black_at_first)
    red, green, blue = generator.generate([request(each) for each in ("red", "green", "blue")], GenerateOptions(seed=7))
    assert seeds == [(7, ["red", "green", "blue"]), (8, ["red", "blue"]), (9, ["blue"])]
    assert (blue.images, blue.failed) == ((), "black")
    monkeypatch.undo()
    np.testing.assert_array_equal(pixels(red), pixels(generator.generate([request("red")], GenerateOptions(seed=8))[0]))
    np.testing.assert_array_equal(
        pixels(green), pixels(generator.generate([request("green")], GenerateOptions(seed=7))[0])
    )
    plain = PseudoTargetGenerator.load(folder)
    assert plain.identity(GenerateOptions()) != generator.identity(GenerateOptions())


def test_what_is_drawn_follows_text_reference_and_seed(generator: PseudoTargetGenerator, layout: str) -> None:
    encoders = LAYOUTS[layout]
    base = request("red", encoders=encoders)
    one, text, picture = generator.generate(
        [base, replace(base, text="blue"), request("red", 1, encoders)], GenerateOptions(images=2)
    )
    [other] = generator.generate([base], GenerateOptions(seed=1))
    first, second = pixels(one)
    for different in (second, pixels(text)[0], pixels(picture)[0], pixels(other)[0]):
        assert np.abs(first - different).max() > 3


def test_a_drawing_does_not_depend_on_those_beside_it(generator: PseudoTargetGenerator, layout: str) -> None:
    requests = [request(text, seed, LAYOUTS[layout]) for seed, text in enumerate(("red", "a " * 90, "blue"))]
    options = GenerateOptions(steps=3, seed=7, images=2)
    together = generator.generate(requests, options)
    for each, drawing in zip(requests, together, strict=True):
        np.testing.assert_allclose(pixels(generator.generate([each], options)[0]), pixels(drawing), atol=1)
    [fewer] = generator.generate(requests[:1], replace(options, images=1))
    np.testing.assert_allclose(pixels(fewer)[0], pixels(together[0])[0], atol=1)


def test_size_and_count_are_as_told(generator: PseudoTargetGenerator, layout: str) -> None:
    base = request("red", encoders=LAYOUTS[layout])
    assert generator.generate([], GenerateOptions()) == []
    [drawing] = generator.generate([base], GenerateOptions())
    assert [image.size for image in drawing.images] == [(16, 16)]
    assert drawing.images[0].mode == "RGB"
    [drawing] = generator.generate([base], GenerateOptions(size=24, images=3))
    assert [image.size for image in drawing.images] == [(24, 24)] * 3
    assert generator.defaults.size == 16


@pytest.mark.parametrize("guided", ["sd15", "sdxl"])
def test_guidance_and_negatives_tell(generators: dict[str, PseudoTargetGenerator], guided: str) -> None:
    base = [request("red", encoders=LAYOUTS[guided])]
    drawn = [
        pixels(generators[guided].generate(base, options)[0])
        for options in (
            GenerateOptions(guidance=1.0),
            GenerateOptions(guidance=6.0),
            GenerateOptions(guidance=6.0, negative="a dog"),
            GenerateOptions(guidance=0.0, negative="a dog"),
        )
    ]
    assert np.abs(drawn[0] - drawn[1]).max() > 1
    assert np.abs(drawn[1] - drawn[2]).max() > 1
    np.testing.assert_array_equal(drawn[0], drawn[3])  # without guidance, nothing reads the negative


def test_it_draws_in_bfloat16(folders: dict[str, Path]) -> None:
    generator = PseudoTargetGenerator.load(folders["sdxl"], dtype="bfloat16")
    [drawing] = generator.generate([request("red", encoders=2)], GenerateOptions())
    assert pixels(drawing).shape == (1, 16, 16, 3)
    with pytest.raises(CallError, match="float16 is slow"):
        PseudoTargetGenerator.load(folders["sd15"], dtype="float16")


def test_it_says_what_it_reads_and_draws_with(generators: dict[str, PseudoTargetGenerator]) -> None:
    assert generators["sdxl"].feature_models == [("open_clip:tower-0", False), ("open_clip:tower-1", False)]
    assert generators["sd15"].defaults == GenerateOptions(steps=2, guidance=3.0, size=16)


def test_its_identity_is_all_that_a_drawing_depends_on(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["sd15"]
    here = PseudoTargetGenerator.load(folder)
    same = here.identity(GenerateOptions())
    json.dumps(same)
    assert PseudoTargetGenerator.load(shutil.copytree(folder, tmp_path / "copy")).identity(GenerateOptions()) == same
    assert here.identity(GenerateOptions(steps=2, guidance=3.0, size=16)) == same
    for options in (
        GenerateOptions(steps=3), GenerateOptions(guidance=1.0), GenerateOptions(size=24), GenerateOptions(negative="x"),
        GenerateOptions(images=2), GenerateOptions(seed=1),
    ):  # fmt: skip
        assert here.identity(options) != same
    spec = GeneratorSpec.read(folder)
    (word,) = spec.words
    other = PseudoTargetGenerator.load(save_generator(tmp_path / "other", "sd15", word="cat"), spec)
    assert other.identity(GenerateOptions())["words"] != same["words"]
    for changed in (replace(spec, template="{word} {text}"), replace(spec, words=(replace(word, model="fake:24"),))):
        assert PseudoTargetGenerator.load(folder, changed).identity(GenerateOptions()) != same
    assert PseudoTargetGenerator.load(folder, dtype="bfloat16").identity(GenerateOptions()) != same
    (tmp_path / "copy" / "unet" / "config.json").write_text(
        (folder / "unet" / "config.json").read_text().replace('"silu"', '"gelu"')
    )
    assert PseudoTargetGenerator.load(tmp_path / "copy").identity(GenerateOptions()) != same


def test_black_pictures_and_those_that_are_no_numbers_are_failures(plain: PseudoTargetGenerator) -> None:
    whole, black, broken = np.full((3, 4, 4, 3), 0.5, np.float32)
    black = black * 0 + 0.035
    broken[0, 0, 0] = np.nan
    kept = _pseudo_target(np.stack([whole, black, broken, black]))
    assert len(kept.images) == 1
    assert kept.failed == "3 of 4 images came out black or not a number"
    assert _pseudo_target(np.stack([whole, black + 0.01])).failed is None


@pytest.mark.parametrize(("value", "reason"), [(-1.0, "black"), (float("nan"), "not a number")])
def test_a_decoder_that_fails_is_reported(value: float, reason: str, folders: dict[str, Path]) -> None:
    generator = PseudoTargetGenerator.load(folders["sd15"])
    last = generator._pipeline.vae.decoder.conv_out
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(value)
    [drawing] = generator.generate([request("red")], GenerateOptions(images=2))
    assert (drawing.images, drawing.failed) == ((), f"2 of 2 images came out {reason}")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_lack_of_memory_is_a_generators_error(
    plain: PseudoTargetGenerator, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(plain._pipeline.unet, "forward", full)
    said = str(error).splitlines()[0] if str(error) else "MemoryError"
    with pytest.raises(GeneratorError, match="failed on 2 x 3 images of 16 pixels") as caught:
        plain.generate([request("red")] * 2, GenerateOptions(images=3))
    assert said in str(caught.value)
    assert "generate fewer or smaller images at once" in caught.value.remedy


def test_a_size_that_the_pipeline_refuses_is_a_generators_error(plain: PseudoTargetGenerator) -> None:
    with pytest.raises(GeneratorError, match="divisible by 8"):
        plain.generate([request("red")], GenerateOptions(size=20))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"images": 0}, {"size": 1.5}, {"seed": -1}, {"seed": 2**53}, {"seed": True}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError, match=next(iter(wrong))):
        GenerateOptions(**wrong)


def test_the_largest_seed_draws(plain: PseudoTargetGenerator) -> None:
    assert plain.generate([request("red")], GenerateOptions(seed=2**53 - 1))[0].failed is None


def test_a_pipeline_without_a_text_encoder_is_refused(tmp_path: Path) -> None:
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    (tmp_path / "underdrawing.json").write_text('{"words": []}')
    with pytest.raises(ModelError, match="is a DDPMPipeline without a text encoder.*Use a text-to-image pipeline"):
        PseudoTargetGenerator.load(tmp_path)


def test_a_pipeline_without_a_unet_is_refused() -> None:
    pipeline = SimpleNamespace(text_encoder=object(), tokenizer=object(), transformer=object())
    spec = GeneratorSpec((WordSource("m", "i"),))
    with pytest.raises(ModelError, match="is a SimpleNamespace without a UNet"):
        PseudoTargetGenerator(pipeline, spec, [tiny_inversion()], name="flux", digest="")


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return Path.touch, (self.file,)


def test_weights_that_could_run_code_are_not_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        folder = shutil.copytree(folders["sd15"], tmp_path / part)
        [safe] = (folder / part).glob("*.safetensors")
        name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
        torch.save({**load_file(safe), "trap": Trap(tmp_path / "sprung")}, folder / part / name)
        safe.unlink()
        with pytest.raises(ModelError, match="cannot be loaded as a diffusers pipeline.*safetensors weights"):
            PseudoTargetGenerator.load(folder)
    assert not (tmp_path / "sprung").exists()


def test_damaged_weights_are_a_model_error(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["sd15"], tmp_path / "copy")
    [file] = (folder / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded as a diffusers pipeline"):
        PseudoTargetGenerator.load(folder)


def test_a_folder_without_a_spec_or_with_a_wrong_one_says_what_to_write(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["sd15"], tmp_path / "copy")
    file = folder / "underdrawing.json"
    content = json.loads(file.read_text())
    for changed, message in (
        (content | {"colour": "red"}, "has colour = 'red', which is not valid. Known: words, template"),
        (content | {"words": [{"model": "m"}]}, "needs words: a list of objects with the texts model and inversion"),
        ([1], "is a list, not an object"),
    ):
        file.write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=message):
            PseudoTargetGenerator.load(folder)
    file.write_text(json.dumps(content | {"template": "a photo"}))
    with pytest.raises(ModelError, match="must have it once"):
        PseudoTargetGenerator.load(folder)
    file.unlink()
    with pytest.raises(ModelError, match=r'has no underdrawing.json.*Write one: {"words"'):
        PseudoTargetGenerator.load(folder)
    spec = GeneratorSpec((WordSource("m", "phi_0.pt"),))
    assert PseudoTargetGenerator.load(folder, spec).feature_models == [("m", False)]
    with pytest.raises(ModelError, match="text encoders of somebody/model are not known"):
        PseudoTargetGenerator.load("somebody/model")


@pytest.mark.parametrize("source", ["nofolder", "./no/folder", "/nowhere/at/all", Path("somebody/model")])
def test_a_folder_that_is_not_there_is_named(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=rf"There is no generator at {source}\. Name a folder made by") as caught:
        PseudoTargetGenerator.load(source)
    assert "GeneratorSpec" not in str(caught.value)


def test_each_encoder_needs_an_inversion_of_its_width(folders: dict[str, Path]) -> None:
    one = WordSource("m", "phi_0.pt")
    with pytest.raises(ModelError, match="has 2 text encoders and 1 inversions; each needs its own"):
        PseudoTargetGenerator.load(folders["sdxl"], GeneratorSpec((one,)))
    with pytest.raises(ModelError, match=f"makes pseudo-words of {WIDTH} numbers; its text encoder reads {WIDTH_2}"):
        PseudoTargetGenerator.load(folders["sdxl"], GeneratorSpec((one, one)))


def test_names_that_do_not_exist_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="bundled generator 'nobody' is not known"):
        PseudoTargetGenerator.load("bundled:nobody")
    (tmp_path / "underdrawing.json").write_text('{"words": []}')
    with pytest.raises(ModelError, match="cannot be loaded as a diffusers pipeline.*Name a folder with model_index"):
        PseudoTargetGenerator.load(tmp_path)


def test_a_tokenizer_that_knows_no_limit_is_held_to_the_encoders(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["sd15"], tmp_path / "copy")
    file = folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "model_max_length"}))
    [drawing] = PseudoTargetGenerator.load(folder).generate([request("red " * 100)], GenerateOptions())
    assert drawing.failed is None
