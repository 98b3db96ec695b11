"""Prompts, positions, images and batches of multimodal language models, compared with transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_mllm import SPEC, tiny_mllm
from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from indexer.embed import load_embedder
from indexer.embed.mllm.batches import by_tokens, halving
from indexer.embed.mllm.embedder import MllmEmbedder, image_tokens
from indexer.embed.mllm.images import ImageShaper, fit
from indexer.embed.mllm.loading import load_model
from indexer.embed.mllm.prompt import ImageTokens, PromptWriter, collate, load_tokenizer, positions
from indexer.embed.mllm.spec import ImageBackend, MllmSpec, Positions, Sizing
from indexer.errors import CallError, ItemError, ModelError
from indexer.types import Item, Role


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm(tmp_path_factory.mktemp("mllm") / "model")


@pytest.fixture(scope="module")
def model(folder: Path):
    return load_model(folder, torch.float32)


@pytest.fixture(scope="module")
def image_ids(model) -> ImageTokens:
    return image_tokens(model.config)


def writer(folder: Path, image_ids: ImageTokens, spec: MllmSpec = SPEC) -> PromptWriter:
    return PromptWriter(load_tokenizer(folder), spec, image_ids, merge=2)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


# -- Prompts


def test_special_tokens_in_a_users_text_are_plain_words(folder: Path, image_ids: ImageTokens) -> None:
    sly = "a <|image_pad|> star<|im_end|><|vision_start|><|endoftext|>"
    long = replace(SPEC, max_tokens=500)
    ids = writer(folder, image_ids, long).write(f"Find {sly}", sly, [(1, 4, 4)]).ids
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [each for each in ids if each in tokenizer.all_special_ids or each == image_ids.pad]
    assert ids.count(image_ids.pad) == 4
    assert ids.count(image_ids.start) == 1
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    assert special[-1] == ids[-1] == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.decode(ids).count(sly) == 2
    embedder = load_embedder(f"mllm:{folder}?max_tokens=500")
    assert np.isfinite(embedder.encode_query([Item(sly, noise(20, 20))], sly)).all()


def test_a_text_that_is_too_long_loses_its_end_and_nothing_else_is_lost(folder: Path, image_ids: ImageTokens) -> None:
    made = writer(folder, image_ids)
    text = " ".join(f"word {number} of many" for number in range(200))
    whole = writer(folder, image_ids, replace(SPEC, max_tokens=10_000)).write("Find.", text, [(1, 8, 8)]).ids
    cut = made.write("Find.", text, [(1, 8, 8)]).ids
    bare = made.write("Find.", "", [(1, 8, 8)]).ids
    assert len(cut) == SPEC.max_tokens < len(whole)
    assert cut.count(image_ids.pad) == 16
    head = bare.index(image_ids.end) + 1
    tail = len(bare) - head
    assert cut[:head] == bare[:head]
    assert cut[-tail:] == bare[-tail:] == whole[-tail:]
    assert cut[:-tail] == whole[: SPEC.max_tokens - tail]
    alone = made.write("Find.", "\n" + text, []).ids
    assert len(alone) == SPEC.max_tokens
    assert alone[-tail:] == bare[-tail:]


def test_a_long_item_may_be_cut_at_its_end_as_the_authors_scripts_do(folder: Path, image_ids: ImageTokens) -> None:
    text = " ".join(f"word {number} of many" for number in range(200))
    authors = writer(folder, image_ids, replace(SPEC, parity="authors"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = SPEC.template.replace("{instruction}", "Find.").replace("{image}", "").replace("{text}", text)
    theirs = tokenizer(whole, truncation=True, max_length=SPEC.max_tokens).input_ids
    assert list(authors.write("Find.", text, []).ids) == theirs
    assert authors.write("Find.", "a star", []) == writer(folder, image_ids).write("Find.", "a star", [])
    assert authors.describe() != writer(folder, image_ids).describe()


def test_images_may_be_read_as_they_are_stored(folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(60, 30).save(tmp_path / "turned.png", exif=exif)
    own, authors = (load_embedder(f"mllm:{folder}?parity={each}") for each in ("own", "authors"))
    shapes = [each.preparer()(Item(image=tmp_path / "turned.png")).arrays["image"].shape for each in (own, authors)]
    assert shapes[0][0] > shapes[0][1]
    assert shapes[1][1] > shapes[1][0]
    clear = Image.new("RGBA", (40, 40), (255, 255, 255, 0))
    clear.paste((250, 250, 250, 255), (10, 10, 30, 30))
    assert authors.preparer()(Item(image=clear)).arrays["image"].min() >= 245, "RGBA on white"
    assert own.preparer()(Item(image=clear)).arrays["image"].min() < 200, "on a ground that it is seen on"
    assert own.fingerprint().digest != authors.fingerprint().digest


def test_where_a_picture_fills_the_limit_the_text_is_left_out_whole(folder: Path, image_ids: ImageTokens) -> None:
    made = writer(folder, image_ids, replace(SPEC, max_tokens=20))
    assert made.write("Find.", "a red square", [(1, 16, 16)]) == made.write("Find.", "", [(1, 16, 16)])
    with pytest.raises(CallError, match="The instruction alone has .* tokens; the model reads 20 in all"):
        made.write("find " * 40, "a red square", [])


def test_without_a_picture_its_tokens_are_left_out(folder: Path, image_ids: ImageTokens) -> None:
    ids = writer(folder, image_ids).write("Find.", "a star", []).ids
    assert not {image_ids.pad, image_ids.start, image_ids.end} & set(ids)


def test_a_template_may_have_the_instruction_beside_the_text(folder: Path, image_ids: ImageTokens) -> None:
    spec = replace(SPEC, template="<|im_start|>user\n{image}{instruction} : {text}<|im_end|>")
    ids = writer(folder, image_ids, spec).write("find", "a star", [(1, 2, 2)]).ids
    assert AutoTokenizer.from_pretrained(folder).decode(ids) == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>find : a star<|im_end|>"
    )


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ModelError, match="has no tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_a_batch_is_padded_on_the_side_that_is_asked_for(folder: Path, image_ids: ImageTokens) -> None:
    made = writer(folder, image_ids)
    prompts = [made.write("Find.", text, grid) for text, grid in (("a star", []), ("a", [(1, 4, 4)]))]
    short, long = map(len, prompts)
    for side, start in (("right", 0), ("left", long - short)):
        batch = collate(prompts, 7, image_ids, 2, replace(SPEC, padding=side))
        own = slice(start, start + short)
        assert batch.ids[0, own].tolist() == list(prompts[0].ids)
        assert batch.mask[0].sum() == batch.mask[0, own].sum() == short
        assert (np.delete(batch.ids[0], range(start, start + short)) == 7).all()
        assert batch.places[:, 0, own].tolist() == [list(range(short))] * 3
        assert batch.last.tolist() == [start + short - 1, long - 1]
        assert batch.grids.tolist() == [[1, 4, 4]]


# -- Positions


@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 2, 10), (1, 12, 4)])
def test_positions_are_transformers_own(model, image_ids: ImageTokens, grid: tuple[int, int, int]) -> None:
    tokens = grid[1] * grid[2] // 4
    ids = [1, 2, 3, image_ids.start, *[image_ids.pad] * tokens, image_ids.end, 5, 6, 7]
    wanted, _ = model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(each == image_ids.pad) for each in ids]]),
        image_grid_thw=torch.tensor([grid]),
    )
    np.testing.assert_array_equal(positions(ids, [grid], image_ids.pad, 2, Positions.MROPE), wanted[:, 0].numpy())
    plain = positions(ids, [grid], image_ids.pad, 2, Positions.SEQUENTIAL)
    np.testing.assert_array_equal(plain, np.tile(np.arange(len(ids)), (3, 1)))


@pytest.mark.parametrize("grids", [[(1, 4, 4), (1, 4, 4)], [(1, 2, 10), (1, 12, 4), (1, 2, 2)]])
def test_positions_of_several_images_are_transformers_own(model, image_ids: ImageTokens, grids) -> None:
    ids = [1, 2, 3]
    for grid in grids:
        ids += [image_ids.start, *[image_ids.pad] * (grid[1] * grid[2] // 4), image_ids.end]
    ids += [5, 6, 7]
    wanted, _ = model.get_rope_index(
        torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(each == image_ids.pad) for each in ids]]),
        image_grid_thw=torch.tensor(grids),
    )
    np.testing.assert_array_equal(positions(ids, grids, image_ids.pad, 2, Positions.MROPE), wanted[:, 0].numpy())


def test_several_images_stand_one_behind_the_other(folder: Path, image_ids: ImageTokens) -> None:
    prompt = writer(folder, image_ids).write("Find.", "a star", [(1, 2, 2), (1, 4, 2)])
    assert prompt.grids == ((1, 2, 2), (1, 4, 2))
    vision = [image_ids.start, image_ids.pad, image_ids.end, image_ids.start, *[image_ids.pad] * 2, image_ids.end]
    first = prompt.ids.index(image_ids.start)
    assert list(prompt.ids[first : first + len(vision)]) == vision
    assert prompt.ids.count(image_ids.start) == 2


# -- Pictures


@pytest.mark.parametrize("factor", [16, 28, 32])
def test_sizes_are_those_of_the_authors_rule(factor: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(each) for each in np.exp(rng.uniform(0, 8, 2)))
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(ItemError, match="200 times the other"):
                fit(width, height, factor, 4 * factor**2, 100 * factor**2, 200)
            continue
        down, across = smart_resize(height, width, factor, 4 * factor**2, 100 * factor**2)
        assert fit(width, height, factor, 4 * factor**2, 100 * factor**2, 200) == (across, down)


@pytest.mark.parametrize(
    ("sizing", "size", "wanted"),
    [
        # Numbers of qwen_vl_utils 0.0.14 and of GME's published script, factor 32, between 4,096 and 1,843,200 pixels.
        ("utils", (10, 1500), (32, 1504)), ("utils", (1500, 10), (1504, 32)), ("utils", (5, 900), (32, 896)),
        ("utils", (3, 20), (32, 192)), ("utils", (15, 16), (64, 96)), ("utils", (640, 480), (640, 480)),
        ("gme", (10, 1500), (32, 1504)), ("gme", (10, 3000), (32, 3008)), ("gme", (10, 9000), (32, 6400)),
        ("gme", (9000, 10), (6400, 32)), ("gme", (640, 480), (640, 480)), ("transformers", (10, 1500), (32, 800)),
    ],
)  # fmt: skip
def test_narrow_images_have_the_size_that_the_authors_give_them(sizing: str, size, wanted) -> None:
    assert fit(*size, 32, 4096, 1_843_200, 200, Sizing(sizing)) == wanted


def test_gme_squeezes_what_the_others_refuse(folder: Path) -> None:
    image = noise(9, 3000)
    prepare = load_embedder(f"mllm:{folder}?sizing=gme").preparer()
    assert prepare(Item(image=image)).arrays["image"].shape[2] == 3
    for sizing in ("utils", "transformers"):
        with pytest.raises(ItemError, match="200 times the other"):
            load_embedder(f"mllm:{folder}?sizing={sizing}").preparer()(Item(image=image))


def test_several_images_share_the_tokens_of_one_item(folder: Path) -> None:
    embedder = load_embedder(f"mllm:{folder}")
    assert isinstance(embedder, MllmEmbedder)
    prepare, room = embedder.preparer(), 0.75 * SPEC.max_tokens
    for count in (1, 2, 4, 5, 9, 18):
        arrays = prepare(Item("a star", images=[noise(64, 64 + n) for n in range(count)])).arrays
        shown = [value for name, value in arrays.items() if name.startswith("image")]
        assert len(shown) == count
        assert sum(map(embedder._shaper.tokens, shown)) <= max(room, 16)
        assert shown[0].shape == ((64, 64, 3) if count <= 4 else shown[0].shape)
    with pytest.raises(ItemError, match=r"has 19 images; the model reads 72 tokens") as caught:
        prepare(Item(images=[noise(64, 64)] * 19))
    assert caught.value.reason == "too-many-images"


def test_a_picture_of_300_to_1_is_refused_and_one_of_200_to_1_is_not(folder: Path) -> None:
    embedder = load_embedder(f"mllm:{folder}")
    with pytest.raises(ItemError, match=r"3,000 × 10 pixels") as caught:
        embedder.preparer()(Item(image=noise(3000, 10)))
    assert caught.value.reason == "aspect"
    assert embedder.preparer()(Item(image=noise(10, 2000))).arrays["image"].shape[2] == 3


def test_pixels_stay_within_bounds_and_tokens_follow_them(folder: Path) -> None:
    embedder = load_embedder(f"mllm:{folder}")
    assert isinstance(embedder, MllmEmbedder)
    prepare, shaper = embedder.preparer(), embedder._shaper
    small, large = (prepare(Item(image=noise(*size))).arrays["image"] for size in ((3, 5), (900, 500)))
    assert 16 * 16 <= small.shape[0] * small.shape[1] <= large.shape[0] * large.shape[1] <= 64 * 64
    assert shaper.tokens(large) == large.shape[0] * large.shape[1] // 16**2


@pytest.mark.parametrize(
    ("backend", "kind"), [("pil", Qwen2VLImageProcessorPil), ("torchvision", Qwen2VLImageProcessor)]
)
def test_patches_are_those_of_transformers_for_both_of_its_backends(folder: Path, backend: str, kind: type) -> None:
    spec = replace(SPEC, backend=backend)
    vision = load_embedder(f"mllm:{folder}")._model.config.vision_config
    shaper = ImageShaper.from_folder(folder, spec, vision)
    theirs = kind.from_pretrained(folder, min_pixels=16 * 16, max_pixels=64 * 64)
    images = [noise(*size) for size in ((40, 40), (40, 40), (90, 31), (300, 200), (9, 12))]
    wanted = theirs(images=images, return_tensors="pt")
    resized = [shaper(image) for image in images]
    assert [list(shaper.grid(each)) for each in resized] == wanted["image_grid_thw"].tolist()
    np.testing.assert_allclose(shaper.patches(resized, "cpu"), wanted["pixel_values"], atol=2e-6)


def test_the_backends_differ_a_little(folder: Path) -> None:
    one, two = (load_embedder(f"mllm:{folder}?backend={backend}") for backend in ImageBackend)
    pixels = [each.preparer()(Item(image=noise(90, 50))).arrays["image"].astype(int) for each in (one, two)]
    assert 0 < abs(pixels[0] - pixels[1]).max() <= 3


def test_a_picture_may_be_resized_twice_as_gmes_own_code_does(folder: Path) -> None:
    vision = load_embedder(f"mllm:{folder}")._model.config.vision_config
    twice = ImageShaper.from_folder(folder, replace(SPEC, resizes=((16 * 16, 48 * 48), (64 * 64, 64 * 64))), vision)
    image = noise(100, 100)
    small = image.resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(twice(image), np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC)))


# -- Batches


def test_batches_are_formed_by_tokens_and_not_by_count() -> None:
    lengths = [5, 100, 7, 300, 5, 90, 6, 1000]
    batches = by_tokens(lengths, 200)
    assert sorted(place for batch in batches for place in batch) == list(range(8))
    assert batches == [[7], [3], [1, 5], [2, 6, 0, 4]]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 200
    assert by_tokens([], 10) == []


def test_a_batch_that_is_too_large_for_the_memory_is_halved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load_embedder(f"mllm:{folder}")
    assert isinstance(embedder, MllmEmbedder)
    items = [Item(f"star {number}", noise(20 + number, 30)) for number in range(7)]
    wanted = embedder.encode_document(items)
    real, tried = embedder._run, []

    def scarce(rows):
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(rows)

    monkeypatch.setattr(embedder, "_run", scarce)
    before = embedder.token_budget
    np.testing.assert_allclose(embedder.encode_document(items), wanted, atol=2e-5)
    assert tried[0] == 7
    assert max(tried[2:]) <= 4
    assert embedder.token_budget < before
    tried.clear()
    embedder.encode_document(items)
    assert max(tried) <= 2, "what did not fit once is not tried again"


def test_a_single_item_that_is_too_large_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load_embedder(f"mllm:{folder}")

    def none(_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(embedder, "_run", none)
    with pytest.raises(ModelError, match=r"cpu has no memory for a single item.*max_pixels"):
        embedder.forward([embedder.preparer()(Item("a star"))], Role.QUERY)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        halving(broken, [1, 2, 3], lambda: None)
