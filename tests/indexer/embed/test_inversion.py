"""Pseudo-words in encoders of each kind, and inversions in their published layouts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file
from tiny_models import DIM, TEXT, WIDTH, native_clip, pictures, published_phi, tiny_clip, tiny_inversion
from transformers import RobertaConfig

from indexer.embed import load_embedder
from indexer.embed.clip.embedder import ClipEmbedder
from indexer.embed.textual_inversion import InversionConfig, PseudoWordReader, build_phi, load_inversion
from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.files.atomic import file_digest
from indexer.types import Item

TEXTS = [
    "a red square", "", "$", "a $ b * {word} {text} ###", "[PAD] [START] <start_of_text>", "  It's\n10% \té \N{DIZZY SYMBOL} ",
    "many words " * 200, "a",
]  # fmt: skip
LONG = "and so on " * 100


@pytest.fixture(scope="module", params=["own tokenizer", "native tokenizer", "native tokenizer, one module"])
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ClipEmbedder:
    folder = tmp_path_factory.mktemp("clip")
    match request.param:
        case "own tokenizer":
            made = tiny_clip(folder)
        case "native tokenizer":
            made = native_clip(folder / "model", custom=True)
        case _:
            made = native_clip(folder / "model", custom=False)
    loaded = load_embedder(f"open_clip:{made}")
    assert isinstance(loaded, ClipEmbedder)
    return loaded


@pytest.fixture(scope="module")
def reader(embedder: ClipEmbedder) -> PseudoWordReader:
    return embedder.pseudo_word_reader


def said(embedder: ClipEmbedder, *texts: str) -> np.ndarray:
    """The tower's own output."""
    with torch.inference_mode():
        return embedder.model.encode_text(embedder.tokenizer(list(texts))).numpy()


def worded(embedder: ClipEmbedder, template: str, texts: list[str], words: np.ndarray) -> np.ndarray:
    """The tower's output with words."""
    tokens, places = embedder.pseudo_word_reader.tokenize(template, texts)
    with torch.inference_mode(), embedder.pseudo_word_reader.reading(places, torch.from_numpy(words)):
        return embedder.model.encode_text(tokens).numpy()


def known(embedder: ClipEmbedder, word: str) -> np.ndarray:
    """The tower's own embedding of a word of one token."""
    [number] = embedder.pseudo_word_reader._pieces.ids(word)
    return embedder.pseudo_word_reader.embedding.weight[number].detach().numpy()


def test_without_a_word_a_text_is_read_as_the_tower_reads_it(embedder: ClipEmbedder) -> None:
    assert torch.equal(embedder.pseudo_word_reader.tokenize("{text}", TEXTS)[0], embedder.tokenizer(TEXTS))
    nothing = np.zeros((len(TEXTS), WIDTH), np.float32)
    np.testing.assert_array_equal(worded(embedder, "{text}", TEXTS, nothing), said(embedder, *TEXTS))
    np.testing.assert_allclose(
        embedder.encode_pseudo_words("{text}", TEXTS, nothing),
        embedder.encode_query([Item(text=text) for text in TEXTS]),
        atol=1e-6,
    )


def test_a_word_that_is_a_tokens_own_embedding_is_read_as_that_token(embedder: ClipEmbedder) -> None:
    words = np.stack([known(embedder, word) for word in ("a", "o")])
    read = worded(embedder, "x {word} that, {text}", ["is $ red", "{word} o [END]"], words)
    np.testing.assert_array_equal(read, said(embedder, "x a that, is $ red", "x o that, {word} o [END]"))
    assert np.abs(read - said(embedder, "x o that, is $ red", "x a that, {word} o [END]")).max() > 1e-3


def test_nothing_a_user_types_is_taken_for_the_word(reader: PseudoWordReader) -> None:
    short = ["a", "", "$", "a *", "{word}", "{text}", "x {word}", "#", "[END]"]
    tokens, places = reader.tokenize("{word} {text}", short)
    plain, none = reader.tokenize("{text}", short)
    assert places.sum(1).tolist() == [1] * len(short)
    assert not none.any()
    first = places.int().argmax(1)
    for row, place, alone in zip(tokens.tolist(), first.tolist(), plain.tolist(), strict=True):
        assert row[:place] + row[place + 1 :] == alone[: len(row) - 1]


def test_words_of_any_number_have_their_places(embedder: ClipEmbedder) -> None:
    tokens, places = embedder.pseudo_word_reader.tokenize_pieces([["", "and", "x"], ["b", ""], ["no word"]])
    assert places.sum(1).tolist() == [2, 1, 0]
    words = torch.from_numpy(np.stack([known(embedder, word) for word in "oei"]))
    with torch.inference_mode(), embedder.pseudo_word_reader.reading(places, words):
        read = embedder.model.encode_text(tokens)
    np.testing.assert_array_equal(read.numpy(), said(embedder, "o and o x", "b e", "no word"))


def test_a_long_text_loses_its_tail_but_not_its_word_and_its_end(embedder: ClipEmbedder) -> None:
    tokens, places = embedder.pseudo_word_reader.tokenize("a {word} that {text}", [LONG])
    assert tokens.shape == places.shape == (1, embedder.pseudo_word_reader.context)
    assert places.sum() == 1
    np.testing.assert_array_equal(tokens[0, -1], embedder.tokenizer(["x"]).max())
    word = known(embedder, "o")[None]
    np.testing.assert_array_equal(
        worded(embedder, "a {word} that {text}", [LONG], word), said(embedder, f"a o that {LONG}")
    )
    assert embedder.pseudo_word_reader.tokenize("{word} {text} {word}", [LONG])[1].sum() == 1


def test_a_word_at_the_last_place_is_kept_and_one_beyond_is_refused(reader: PseudoWordReader) -> None:
    room = reader.context - 2
    _, places = reader.tokenize("{text} {word}", ["x " * (room - 1)])
    assert places[0].nonzero().tolist() == [[room]]
    with pytest.raises(CallError, match=rf"has {room} tokens; there is room for {room - 1}\. Write a template"):
        reader.tokenize("{text} {word}", ["x " * room])


def test_no_text_has_the_shape_of_none(reader: PseudoWordReader) -> None:
    tokens, places = reader.tokenize_pieces([])
    assert tokens.shape == places.shape == (0, reader.context)


def test_the_tower_is_itself_again_after_a_failure(embedder: ClipEmbedder) -> None:
    before = said(embedder, "a red square")
    _, places = embedder.pseudo_word_reader.tokenize("{word}", [""])
    with pytest.raises(KeyboardInterrupt), embedder.pseudo_word_reader.reading(places, torch.ones(1, WIDTH)):
        raise KeyboardInterrupt
    np.testing.assert_array_equal(said(embedder, "a red square"), before)


def test_another_thread_reads_its_texts_without_the_word(embedder: ClipEmbedder) -> None:
    before = said(embedder, "a red square")
    _, places = embedder.pseudo_word_reader.tokenize("{word}", [""])
    with embedder.pseudo_word_reader.reading(places, torch.ones(1, WIDTH)), ThreadPoolExecutor(1) as other:
        np.testing.assert_array_equal(other.submit(said, embedder, "a red square").result(), before)


def test_reading_leaves_the_models_tokenizer_as_it_is(tmp_path: Path) -> None:
    """It remembers how it last padded, and another thread may be about to use it."""
    embedder = load_embedder(f"open_clip:{tiny_clip(tmp_path)}")
    own = embedder.tokenizer.tokenizer  # transformers' own
    own(["a red square"], padding="max_length", truncation=True, max_length=TEXT["context_length"])
    before = (own.backend_tokenizer.padding, own.backend_tokenizer.truncation)
    assert None not in before
    tokens, _ = PseudoWordReader(embedder.model.text.token_embedding, own, TEXT["context_length"]).tokenize(
        "a {word}", ["$"]
    )
    assert tokens.shape == (1, TEXT["context_length"])
    assert (own.backend_tokenizer.padding, own.backend_tokenizer.truncation) == before


def test_words_are_read_in_bfloat16_as_well(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    words = 0.3 * np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    texts = ["a red square", "$", LONG]
    full, half = (
        load_embedder(f"open_clip:{folder}", dtype=dtype).encode_pseudo_words("a {word}, {text}", texts, words)
        for dtype in ("float32", "bfloat16")
    )
    assert (full * half).sum(1).min() > 0.999


def test_picture_features_are_the_vectors_before_they_are_made_unit(embedder: ClipEmbedder) -> None:
    items = [Item(image=picture) for picture in pictures(3)]
    prepare = embedder.preparer()
    features = embedder.image_features([prepare(item) for item in items])
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.01
    np.testing.assert_allclose(features / lengths, embedder.encode_query(items), atol=1e-5)


def test_a_text_tower_of_another_library_is_refused(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    embedder = load_embedder(f"open_clip:{folder}")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    RobertaConfig(vocab_size=TEXT["vocab_size"], **shape).save_pretrained(tmp_path / "roberta")
    embedder.model.text = HFTextEncoder(
        str(tmp_path / "roberta"), DIM, pooler_type="mean_pooler", proj_type="linear", pretrained=False
    )
    assert embedder.encode_query([Item(text="a red square")]).shape == (1, DIM)
    with pytest.raises(CallError, match="is a HFTextEncoder; only open_clip's reads pseudo-words"):
        embedder.encode_pseudo_words("{word}", [""], np.zeros((1, WIDTH), np.float32))


def bare(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save(tensors, file)


def named(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save({"epoch": 9, "Phi": tensors}, file)


def parallel(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save({"Phi": {f"module.{key}": value for key, value in tensors.items()}, "args": {"lr": 1e-4}}, file)


def wrapped(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save({"model": {"state_dict": tensors}, "step": 20_000}, file)


def legacy(tensors: dict[str, torch.Tensor], file: Path) -> None:
    torch.save({"Phi": tensors}, file, _use_new_zipfile_serialization=False)


def safe(tensors: dict[str, torch.Tensor], file: Path) -> None:
    save_file(tensors, file)


PUBLISHED = [
    pytest.param(named, "searle.pt", 512, id="SEARLE, ViT-B/32"),
    pytest.param(named, "searle_xl.pth", 768, id="SEARLE-XL, ViT-L/14"),
    pytest.param(safe, "model.safetensors", 1024, id="LinCIR, ViT-H/14"),
    pytest.param(bare, "lincir.bin", 1280, id="LinCIR, ViT-bigG/14"),
]


@pytest.mark.parametrize(("write", "name", "dim"), PUBLISHED)
def test_published_inversions_load(write: object, name: str, dim: int, tmp_path: Path) -> None:
    config = InversionConfig(dim, 4 * dim, dim)
    with torch.device("meta"):
        phi = build_phi(config, dropout=0.5)
    phi.to_empty(device="cpu")
    with torch.no_grad():
        for place, each in enumerate(phi.parameters()):
            each.normal_(0, 0.02, generator=torch.Generator().manual_seed(place))
    write(phi.state_dict(), tmp_path / name)
    loaded = load_inversion(tmp_path / name)
    assert loaded.config == config
    assert not loaded.config.normalized
    features = np.random.default_rng(0).standard_normal((2, dim)).astype(np.float32)
    with torch.inference_mode():
        expected = phi.eval()(torch.from_numpy(features)).numpy()
    np.testing.assert_array_equal(loaded.words(features), expected)


@pytest.mark.parametrize("write", [bare, named, parallel, wrapped, legacy, safe])
def test_every_wrapping_of_the_same_weights_gives_the_same_words(write: object, tmp_path: Path) -> None:
    inversion = tiny_inversion()
    file = tmp_path / ("phi.safetensors" if write is safe else "phi.pt")
    write(inversion.phi.state_dict(), file)
    features = np.eye(DIM, dtype=np.float32)
    np.testing.assert_array_equal(load_inversion(str(file)).words(features), inversion.words(features))


def test_features_of_another_width_are_refused_with_both_numbers() -> None:
    with pytest.raises(CallError, match=rf"reads features of {DIM} numbers; this model's have 512\. Use an inversion"):
        tiny_inversion().words(np.zeros((1, 512), np.float32))


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> object:
        return Path.touch, (self.file,)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    inversion = tiny_inversion()
    torch.save({"Phi": inversion.phi.state_dict(), "hyper": Trap(tmp_path / "sprung")}, tmp_path / "phi.pt")
    with pytest.raises(ModelError, match="would run code from it.*Have its author save a plain state dict"):
        load_inversion(tmp_path / "phi.pt")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "phi.pt", weights_only=False)
    assert (tmp_path / "sprung").exists()


def test_files_that_hold_no_inversion_say_so(tmp_path: Path) -> None:
    weights = tiny_inversion().phi.state_dict()
    named(weights, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    save_file(weights, tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(content[: len(content) // 2])
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({3: torch.ones(2)}, tmp_path / "numbered.pt")
    torch.save({**weights, "layers.9.weight": torch.ones(2)}, tmp_path / "deeper.pt")
    torch.save({**weights, "layers.0.weight": torch.ones(2)}, tmp_path / "flat.pt")
    torch.save({**weights, "layers.3.weight": torch.ones(2, 2)}, tmp_path / "odd.pt")
    for name, message in {
        "torn.pt": "cannot be read as weights",
        "empty.pt": "cannot be read as weights",
        "torn.safetensors": "cannot be read as weights",
        "numbers.pt": "no layers.0.weight among its 1 entries",
        "list.pt": "holds a list, not a Phi",
        "numbered.pt": "no layers.0.weight among its 1 entries",
        "deeper.pt": "these differ: layers.9.weight",
        "flat.pt": "do not fit",
        "odd.pt": r"do not fit their configuration: .*\(2, 2\)",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_inversion(tmp_path / name)


def test_a_saved_inversion_comes_back_in_half_precision(tmp_path: Path) -> None:
    inversion = tiny_inversion(template="{word} but {text}")
    inversion.save(tmp_path / "once")
    once = load_inversion(tmp_path / "once")
    features = np.eye(DIM, dtype=np.float32)
    np.testing.assert_allclose(once.words(features), inversion.words(features), atol=1e-3)
    assert once.config == inversion.config
    assert once.digest == file_digest(tmp_path / "once" / "inversion.safetensors")
    once.save(tmp_path / "twice")
    twice = load_inversion(tmp_path / "twice")
    np.testing.assert_array_equal(twice.words(features), once.words(features))
    assert twice.digest == once.digest


def test_a_folder_that_lacks_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not an inversion: it lacks inversion.json"):
        load_inversion(tmp_path)
    tiny_inversion().save(tmp_path)
    config = json.loads((tmp_path / "inversion.json").read_text())
    (tmp_path / "inversion.json").write_text(json.dumps({**config, "colour": "red"}))
    with pytest.raises(ModelError, match="its inversion.json cannot be used: 'colour' is 'red'"):
        load_inversion(tmp_path)
    (tmp_path / "inversion.json").write_text(json.dumps({**config, "hidden_dim": 5}))
    with pytest.raises(ModelError, match=r"do not fit their configuration: layers of .* not features of 24, 5 inside"):
        load_inversion(tmp_path)
    (tmp_path / "inversion.json").write_text(json.dumps(config))
    (tmp_path / "inversion.safetensors").unlink()
    with pytest.raises(ModelError, match=r"inversion.safetensors cannot be read as weights"):
        load_inversion(tmp_path)


def test_names_that_do_not_exist_say_what_does() -> None:
    with pytest.raises(UnknownNameError, match="bundled inversion 'nobody' is not known"):
        load_inversion("bundled:nobody")
    with pytest.raises(ModelError, match="no inversion at /nowhere/phi.pt. Name a folder made by"):
        load_inversion("/nowhere/phi.pt")


@pytest.mark.parametrize(("template", "times"), [("a photo", 0), ("{word} and {word}", 2), ("{text}", 0)])
def test_a_template_has_one_word(template: str, times: int) -> None:
    with pytest.raises(CallError, match=f"has {{word}} {times} times; it must have it once"):
        tiny_inversion(template=template)


def test_a_published_phi_may_give_one_word_whatever_it_reads(tmp_path: Path) -> None:
    """What other tests build on."""
    word = np.arange(WIDTH, dtype=np.float32)
    loaded = load_inversion(published_phi(tmp_path / "phi.pt", word))
    features = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)
    np.testing.assert_array_equal(loaded.words(features), np.stack([word] * 3))
