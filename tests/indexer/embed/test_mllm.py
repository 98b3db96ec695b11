"""The adapter for multimodal language models, on tiny random checkpoints: each detail that affects a vector."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_mllm import SPEC, WIDTH, tiny_mllm

from indexer.embed import load_embedder
from indexer.embed.base import Dtype
from indexer.embed.mllm.embedder import MllmEmbedder
from indexer.embed.mllm.loading import load_model
from indexer.embed.mllm.spec import GME, QWEN3_VL_EMBEDDING, SPEC_FILE, SPECS, MllmSpec, Padding
from indexer.errors import CallError, ItemsError, ModelError, UnknownNameError
from indexer.types import Item, Modality, Role

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("mllm")
    return {kind: tiny_mllm(base / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def folder(folders: dict[str, Path]) -> Path:
    return folders["qwen2_vl"]


@pytest.fixture(scope="module")
def embedder(folder: Path) -> MllmEmbedder:
    return load(folder)


def load(folder: Path, options: str = "") -> MllmEmbedder:
    found = load_embedder(f"mllm:{folder}{options}")
    assert isinstance(found, MllmEmbedder)
    return found


def with_spec(folder: Path, to: Path, spec: MllmSpec) -> MllmEmbedder:
    copied = shutil.copytree(folder, to)
    (copied / SPEC_FILE).write_text(json.dumps(spec.to_json()))
    return load(copied)


def picture(width: int = 40, height: int = 40, seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def mixed() -> list[Item]:
    """Texts, pictures of two shapes, and both; short and long."""
    return [
        Item("a red square"), Item(image=picture()), Item("a star", picture(30, 61, 2)), Item("x " * 70),
        Item(image=picture(61, 30, 3)), Item("two green stars at night", picture(seed=4)), Item("b"),
    ]  # fmt: skip


def by_transformers(folder: Path, prompt: str, image: Any, *, mrope: bool = True) -> np.ndarray:
    """The unit vector of a prompt by transformers' own processor and, with `mrope`, its own positions."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bounds = {"min_pixels": 16 * 16, "max_pixels": 64 * 64}
    images = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder, **bounds)
    video = transformers.Qwen2VLVideoProcessor()
    name = "Qwen3VLProcessor" if config["model_type"] == "qwen3_vl" else "Qwen2VLProcessor"
    processor = getattr(transformers, name)(images, tokenizer, video)
    inputs = processor(
        text=[prompt],
        images=None if image is None else image if isinstance(image, list) else [image],
        return_tensors="pt",
    )
    model = load_model(folder, torch.float32)
    with torch.inference_mode():
        if mrope:
            hidden = model(**inputs).last_hidden_state
        else:  # as GME's own code: embeddings with the picture's in their places, and no positions given
            embedded = model.get_input_embeddings()(inputs["input_ids"])
            if image is not None:
                seen = model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
                embedded[inputs["input_ids"] == config["image_token_id"]] = seen
            hidden = model.language_model(inputs_embeds=embedded).last_hidden_state
    vector = hidden[0, -1].numpy()
    return vector / np.linalg.norm(vector)


VISION = "<|vision_start|><|image_pad|><|vision_end|>"


def written(instruction: str, user: str) -> str:
    return (
        f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_transformers_own_processor_and_positions(folders: dict[str, Path], kind: str) -> None:
    """The template, the image before the text, the instruction in the system's turn, the last token, M-RoPE, pixels."""
    image = picture(70, 44)
    cases = {
        "a blue circle": Item("a blue circle"),
        f"{VISION}a blue circle": Item("a blue circle", image),
        VISION: Item(image=image),
        "\n\n  a  square\n": Item("\n\n  a  square\n"),
    }
    embedder = load(folders[kind])
    given = embedder.encode_document(list(cases.values()))
    asked = embedder.encode_query(list(cases.values()), "represent all")
    for row, (user, item) in enumerate(cases.items()):
        want = by_transformers(folders[kind], written("Represent.", user), item.image)
        np.testing.assert_allclose(given[row], want, atol=2e-5, err_msg=user)
        want = by_transformers(folders[kind], written("represent all", user), item.image)
        np.testing.assert_allclose(asked[row], want, atol=2e-5, err_msg=user)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a blue circle", None])
def test_several_images_and_a_text_are_one_prompt_as_transformers_own_processor_writes_it(
    folders: dict[str, Path], kind: str, text: str | None
) -> None:
    images = [picture(40, 24, 1), picture(24, 40, 2), picture(32, 32, 3)]
    embedder = load(folders[kind])
    given = embedder.encode_document([Item(text, images=images), Item(text, images=images[::-1]), Item("x")])
    want = by_transformers(folders[kind], written("Represent.", f"{VISION * 3}{text or ''}"), images)
    np.testing.assert_allclose(given[0], want, atol=2e-5)
    assert given[0] @ given[1] < 0.9999, "their order counts"
    alone = embedder.encode_document([Item(text, images=images)])
    np.testing.assert_allclose(alone[0], given[0], atol=2e-5)


def test_several_images_by_sequential_positions(folder: Path) -> None:
    images = [picture(40, 24, 1), picture(24, 40, 2)]
    given = load(folder, "?positions=sequential").encode_document([Item("a star", images=images)])[0]
    want = by_transformers(folder, written("Represent.", f"{VISION * 2}a star"), images, mrope=False)
    np.testing.assert_allclose(given, want, atol=2e-5)


def test_sequential_positions_are_those_of_gmes_own_code(folder: Path) -> None:
    item = Item("a blue circle", picture(70, 44))
    given = load(folder, "?positions=sequential").encode_document([item])[0]
    want = by_transformers(folder, written("Represent.", f"{VISION}a blue circle"), item.image, mrope=False)
    np.testing.assert_allclose(given, want, atol=2e-5)
    assert abs(given - load(folder).encode_document([item])[0]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_batch_equals_its_items_one_by_one(folders: dict[str, Path], kind: str) -> None:
    embedder = load(folders[kind])
    together = embedder.encode_document(mixed())
    assert together.shape == (7, WIDTH)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for item, row in zip(mixed(), together, strict=True):
        np.testing.assert_allclose(embedder.encode_document([item])[0], row, atol=2e-5)
    assert (together @ together.T)[~np.eye(7, dtype=bool)].max() < 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_padding_left_and_right_give_the_same(folders: dict[str, Path], kind: str) -> None:
    right, left = load(folders[kind]), load(folders[kind], "?padding=left")
    assert (right.spec.padding, left.spec.padding) == (Padding.RIGHT, Padding.LEFT)
    np.testing.assert_allclose(right.encode_document(mixed()), left.encode_document(mixed()), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_change_when_the_picture_does(folders: dict[str, Path], kind: str) -> None:
    embedder = load(folders[kind])
    one, other, none = embedder.encode_document(
        [Item("a star", picture(seed=1)), Item("a star", picture(seed=2)), Item("a star")]
    )
    assert max(one @ other, one @ none) < 0.999
    alone, too = embedder.encode_document([Item(image=picture(seed=1)), Item(image=picture(seed=2))])
    assert alone @ too < 0.999


def test_a_fused_item_is_read_at_once_and_no_sum_of_its_parts(embedder: MllmEmbedder) -> None:
    assert embedder.fuses_natively
    assert embedder.modalities == frozenset(Modality)
    text, image, fused = embedder.encode_document([Item("a star"), Item(image=picture()), Item("a star", picture())])
    basis, _ = np.linalg.qr(np.stack([text, image]).T)
    assert np.linalg.norm(fused @ basis) < 0.99, "it lies in the plane of its parts"


def test_an_instruction_changes_queries_and_never_documents(embedder: MllmEmbedder) -> None:
    assert embedder.reads_instructions
    items = [Item("a star"), Item("a star", picture())]
    plain, asked = embedder.encode_query(items), embedder.encode_query(items, "find what is drawn at night")
    assert (plain * asked).sum(1).max() < 0.9999
    stored = embedder.try_encode(items, Role.DOCUMENT, "find what is drawn at night").vectors
    np.testing.assert_array_equal(stored, embedder.encode_document(items))


def test_queries_of_both_parts_may_have_an_instruction_of_their_own(folder: Path, tmp_path: Path) -> None:
    fused = with_spec(folder, tmp_path / "fused", replace(SPEC, fused_instruction="find the picture"))
    items = [Item("a star"), Item("a star", picture())]
    told = fused.encode_query(items, "find the picture")
    own = fused.encode_query(items)
    np.testing.assert_allclose(own[1], told[1], atol=1e-5)
    assert own[0] @ told[0] < 0.9999


@pytest.mark.parametrize(
    ("rule", "instruction", "read"),
    [
        ("none", "find", "find"), ("none", " find. ", "find."), ("dot", "find", "find."), ("dot", "find!", "find!."),
        ("dot", "find.", "find."), ("punctuation", "find", "find."), ("punctuation", "find!", "find!"),
        ("punctuation", "找。", "找。"), ("dot", "", ""),
    ],
)  # fmt: skip
def test_instructions_end_as_the_model_is_used_to(rule: str, instruction: str, read: str) -> None:
    spec = replace(SPEC, full_stop=rule)
    assert spec.instruction(Role.QUERY, Modality.TEXT, instruction) == read


def test_the_published_specs_say_what_their_authors_do() -> None:
    assert list(SPECS) == [
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct", "Qwen/Qwen3-VL-Embedding-2B",
        "Qwen/Qwen3-VL-Embedding-8B",
    ]  # fmt: skip
    for spec in SPECS.values():
        assert spec.template.index("{instruction}") < spec.template.index("<|im_start|>user")
        assert spec.template.index("{image}") < spec.template.index("{text}")
        assert spec.instruction(Role.QUERY, Modality.FUSED, None) == spec.instruction(Role.DOCUMENT, Modality.TEXT, "x")
    assert GME.template.endswith("<|im_start|>assistant\n<|endoftext|>")
    assert (GME.positions, GME.full_stop, GME.max_tokens, GME.shorter) == ("sequential", "none", 1800, False)
    assert GME.instruction(Role.QUERY, Modality.TEXT, "Is it?") == "Is it?"
    assert GME.instruction(Role.QUERY, Modality.TEXT, "Find it") == "Find it"
    assert GME.with_options({"full_stop": "dot"}).instruction(Role.QUERY, Modality.TEXT, "Find it") == "Find it."
    assert (GME.sizing, QWEN3_VL_EMBEDDING.sizing) == ("gme", "utils")
    assert GME.resizes[-1] == (200_704, 1_003_520)
    assert QWEN3_VL_EMBEDDING.template.endswith("<|im_start|>assistant\n")
    assert (QWEN3_VL_EMBEDDING.positions, QWEN3_VL_EMBEDDING.full_stop) == ("mrope", "punctuation")
    assert (QWEN3_VL_EMBEDDING.max_tokens, QWEN3_VL_EMBEDDING.shorter) == (8192, True)
    assert QWEN3_VL_EMBEDDING.resizes == ((4_096, 1_843_200),)


def test_the_first_numbers_are_a_vector_of_unit_length_where_a_model_was_trained_so(
    folder: Path, tmp_path: Path
) -> None:
    whole = with_spec(folder, tmp_path / "nested", replace(SPEC, shorter=True))
    short = load(tmp_path / "nested", "?dim=8")
    assert (whole.dim, short.dim) == (WIDTH, 8)
    cut = whole.encode_document(mixed())[:, :8]
    assert np.linalg.norm(cut, axis=1).max() < 0.95
    np.testing.assert_allclose(
        short.encode_document(mixed()), cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5
    )
    assert short.fingerprint().digest != whole.fingerprint().digest
    with pytest.raises(CallError, match=f"vectors of {WIDTH} numbers, fewer than the 99"):
        load(tmp_path / "nested", "?dim=99")
    with pytest.raises(CallError, match=f"was not trained for vectors shorter than {WIDTH}"):
        load(folder, "?dim=8")
    assert load(folder, f"?dim={WIDTH}").dim == WIDTH


def test_a_token_that_the_tokenizer_itself_ends_with_is_the_one_that_counts(tmp_path: Path) -> None:
    open_end = replace(SPEC, template=SPEC.template.removesuffix("<|endoftext|>"))
    plain = load(tiny_mllm(tmp_path / "plain", spec=open_end))
    closing = load(tiny_mllm(tmp_path / "closing", spec=open_end, closing=True))
    whole = load(tiny_mllm(tmp_path / "whole"))
    vectors = [each.encode_document([Item("a star")])[0] for each in (plain, closing, whole)]
    assert vectors[0] @ vectors[1] < 0.999
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-5)
    assert plain.fingerprint().template != closing.fingerprint().template


def test_a_bad_picture_costs_its_own_item_only(embedder: MllmEmbedder) -> None:
    items = [
        Item("a star"),
        Item("flat", picture(3000, 10)),
        Item(image=b"no picture"),
        Item(image=picture()),
        Item(" "),
    ]
    embedded = embedder.try_encode(items, Role.DOCUMENT)
    assert embedded.rows.tolist() == [0, 3]
    reasons = {place: error.reason for place, error in embedded.errors.items()}
    assert reasons == {1: "aspect", 2: "not-an-image", 4: "empty"}
    assert "3,000 × 10 pixels; one side may be at most 200 times" in embedded.errors[1].detail
    np.testing.assert_allclose(embedded.vectors, embedder.encode_document([items[0], items[3]]), atol=2e-5)
    with pytest.raises(ItemsError, match="3 of 5 items cannot be embedded; item 1"):
        embedder.encode_document(items)


def test_preparing_needs_no_model_and_travels_to_a_worker(embedder: MllmEmbedder) -> None:
    packed = pickle.dumps(embedder.preparer())
    assert len(packed) < 2000
    prepared = [pickle.loads(packed)(item) for item in mixed()]  # noqa: S301
    np.testing.assert_allclose(embedder.forward(prepared, Role.DOCUMENT), embedder.encode_document(mixed()), atol=2e-5)
    assert prepared[1].arrays["image"].dtype == np.uint8


def test_bfloat16_keeps_parity_and_has_its_own_fingerprint(folder: Path) -> None:
    full, half = (load_embedder(f"mllm:{folder}", dtype=dtype) for dtype in (Dtype.FLOAT32, Dtype.BFLOAT16))
    cosines = (full.encode_document(mixed()) * half.encode_document(mixed())).sum(1)
    assert cosines.min() >= 0.999
    assert full.fingerprint().digest != half.fingerprint().digest
    with pytest.raises(CallError, match="float16 is slow"):
        load_embedder(f"mllm:{folder}", dtype="float16")


def test_the_fingerprint_follows_all_that_vectors_depend_on_and_not_the_name(folder: Path, tmp_path: Path) -> None:
    here = load(folder).fingerprint().digest
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load(copy).fingerprint().digest == here
    options = ("positions=sequential", "max_pixels=2048", "min_pixels=1024", "max_tokens=50", "backend=torchvision")
    found = {here} | {load(folder, f"?{each}").fingerprint().digest for each in options}
    specs = [
        replace(SPEC, query_instruction="x"), replace(SPEC, document_instruction="x"),
        replace(SPEC, fused_instruction="x"), replace(SPEC, template=SPEC.template.replace("user", "human")),
        replace(SPEC, full_stop="dot"), replace(SPEC, aspect_limit=20),
    ]  # fmt: skip
    for spec in specs:
        (copy / SPEC_FILE).write_text(json.dumps(spec.to_json()))
        found.add(load(copy).fingerprint().digest)
    found.add(load(tiny_mllm(tmp_path / "seed", seed=1)).fingerprint().digest)
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (copy / SPEC_FILE).write_text(json.dumps(SPEC.to_json()))
    (copy / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0.1, 0.1, 0.1]}))
    found.add(load(copy).fingerprint().digest)
    assert len(found) == 1 + len(options) + len(specs) + 2


def test_a_folder_without_a_spec_is_known_by_its_name_or_by_the_one_that_is_named(tmp_path: Path) -> None:
    known = tiny_mllm(tmp_path / "Qwen3-VL-Embedding-2B", "qwen3_vl", spec=None)
    assert load(known).spec == QWEN3_VL_EMBEDDING
    unknown = shutil.copytree(known, tmp_path / "mine")
    with pytest.raises(ModelError, match=r"has no underdrawing.json.*\?spec=Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"):
        load(unknown)
    assert load(unknown, "?spec=Alibaba-NLP/gme-Qwen2-VL-2B-Instruct&max_tokens=70").spec == replace(GME, max_tokens=70)
    with pytest.raises(UnknownNameError, match="spec 'mine' is not known. Known: Alibaba"):
        load(unknown, "?spec=mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?dim", "is not an option"), ("?dim=x", "a whole number of at least 1"), ("?colour=red", "option 'colour'"),
        ("?positions=none", "positions 'none' is not known. Known: mrope, sequential"),
        ("?max_pixels=0", "a whole number of at least 1"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(folder: Path, options: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        load(folder, options)


def test_bounds_of_pixels_move_each_other(folder: Path) -> None:
    assert load(folder, "?max_pixels=100").spec.resizes == ((100, 100),)
    assert load(folder, "?min_pixels=9000").spec.resizes == ((9000, 9000),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not JSON"), ("[]", "is a list, not an object"), ('{"colour": 1}', "key 'colour' is not known"),
        ('{"template": "{text}", "query_instruction": "", "document_instruction": ""}', "needs {instruction} once"),
        ("{}", "missing 3 required"),
    ],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(folder: Path, tmp_path: Path, content: str, message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / SPEC_FILE).write_text(content)
    with pytest.raises(ModelError, match=message):
        load(copy)
