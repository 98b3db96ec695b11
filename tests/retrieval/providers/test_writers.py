"""Captioners and chat models on tiny random checkpoints: loading, prompts as published, and refusals."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny_writers
import torch
from fake_collection import FakeSource
from PIL import Image
from safetensors.torch import load_file, save_file

from indexer.embed.base import Dtype
from indexer.errors import CallError, ItemError, MissingExtraError, ModelError, WritingError
from indexer.types import Item
from retrieval import CaptionRewriter, Query, Retriever
from retrieval.providers.language import Change, load_captioner, load_rewriter, models
from retrieval.providers.language.answers import MOST, filled, read_prompt, sentence_in
from retrieval.providers.language.captioner import SPECS, ImageToText
from retrieval.providers.language.chat import ChatModel

TOKENS = 12
CHANGES = [Change("a cat", "at night"), Change("a dog", "at night"), Change("a big dog runs", "red"), Change("a", "b")]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(models, "TOKENS", TOKENS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a checkpoint, once."""
    made = {}

    def make(kind, **options):
        key = (kind, *options.items())
        if key not in made:
            place = tmp_path_factory.mktemp("checkpoint") / "model"
            make_one = tiny_writers.tiny_chat if kind == "chat" else tiny_writers.tiny_captioner
            made[key] = make_one(place, **({} if kind == "chat" else {"kind": kind}), **options)
        return made[key]

    return make


@pytest.fixture(scope="module")
def pictures():
    """Of two shapes."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (24 + 8 * (n % 2), 32, 3), np.uint8)) for n in range(4)]


def by_the_card(folder, kind, picture, prompt):
    """The caption as the model's card has it computed."""
    import transformers

    model = getattr(transformers, SPECS[kind].model).from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    how = {"max_new_tokens": TOKENS, "do_sample": False}
    if not SPECS[kind].asked:
        tokens = model.generate(**processor(images=picture, return_tensors="pt"), **how)
        return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    tokens = model.generate(**inputs, **how)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", tiny_writers.KINDS)
def test_captions_are_those_of_the_card_alone_and_in_a_batch(folder, pictures, kind):
    captioner = load_captioner(folder(kind))
    captions = captioner.caption(pictures)
    assert captions == [captioner.caption([each])[0] for each in pictures]
    assert len(set(captions)) > 1
    expected = by_the_card(folder(kind), kind, pictures[1], read_prompt("caption.txt"))
    assert captions[1] == sentence_in(expected)
    assert captions[1].split() == expected.split()
    assert captioner.name == str(folder(kind))


def test_every_spec_is_tested():
    assert tuple(SPECS) == tiny_writers.KINDS


def test_pictures_of_one_shape_go_together(folder, pictures, monkeypatch):
    captioner, calls = load_captioner(folder("qwen2_vl")), []
    model = captioner._model._model
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **given: calls.append(len(given["input_ids"])) or generate(**given))
    captioner.caption([*pictures, pictures[0]])
    assert sorted(calls) == [2, 3]


def test_a_bad_picture_costs_itself(folder, pictures):
    captioner = load_captioner(folder("blip"))
    good, bad, other = captioner.caption([pictures[0], b"no picture", pictures[1]])
    assert [good, other] == captioner.caption(pictures[:2])
    assert isinstance(bad, ItemError)
    strange = load_captioner(folder("qwen2_vl"))
    sliver = Image.new("RGB", (900, 2))
    [refused] = strange.caption([sliver])
    assert isinstance(refused, ItemError)
    assert "ratio" in refused.detail


def test_the_prompt_is_read_and_belongs_to_the_identity(folder, pictures):
    one, other = (ImageToText.load(folder("llava"), prompt=prompt) for prompt in ("a cat", "the night"))
    assert one.caption(pictures) != other.caption(pictures)
    assert one.identity() != other.identity()
    assert one.identity() == ImageToText.load(folder("llava"), prompt="a cat").identity()
    assert one.identity() != ImageToText.load(folder("llava"), prompt="a cat", dtype="bfloat16").identity()


def test_the_first_llava_is_asked_by_the_template_it_was_trained_with(folder, pictures):
    captioner = ImageToText.load(folder("llava", template=False), prompt="the cat")
    assert captioner.identity()["prompt"] == "USER: <image>\nthe cat ASSISTANT:"
    assert all(isinstance(each, str) for each in captioner.caption(pictures))
    with pytest.raises(ModelError, match="has no chat template"):
        load_captioner(folder("qwen2_vl", template=False))


def test_sentences_are_those_of_the_template_alone_and_in_a_batch(folder):
    import transformers

    rewriter = load_rewriter(folder("chat"))
    sentences = rewriter.rewrite(CHANGES)
    assert sentences == [rewriter.rewrite([each])[0] for each in CHANGES]
    assert len(set(sentences)) > 1
    question = read_prompt("rewrite.txt").replace("{caption}", "a cat").replace("{text}", "at night")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("chat"))
    tokens = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", return_tensors="pt")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder("chat")).eval()
    said = model.generate(**tokens, max_new_tokens=TOKENS, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    assert sentences[0] == sentence_in(tokenizer.decode(said, skip_special_tokens=True))


def test_a_llama_chats_too(tmp_path):
    """Any causal model with a template: here one that pads with nothing of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tiny_writers.tokenizer(eos_token="</s>", bos_token="<s>")
    words.chat_template = tiny_writers.CHATML
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**tiny_writers._text(words)))
    rewriter = load_rewriter(tiny_writers._saved(tmp_path / "llama", model, words, model.lm_head))
    assert all(isinstance(each, str) for each in rewriter.rewrite(CHANGES))


def test_models_write_for_the_method(folder, pictures, collection, embedder, tmp_path):
    captions = CaptionRewriter(folder("blip"), folder("chat"), cache=tmp_path / "sentences")
    retriever = Retriever(FakeSource(collection.pinned, embedder), "caption", captions=captions)
    results = retriever.search(Query(text="at night", image=pictures[0]), k=3)
    [caption] = load_captioner(folder("blip")).caption([pictures[0]])
    [sentence] = load_rewriter(folder("chat")).rewrite([Change(caption, "at night")])
    assert results.written == {
        "sentence": sentence, "caption": caption, "captioner": str(folder("blip")), "rewriter": str(folder("chat")),
        "cached": False,
    }  # fmt: skip
    expected = collection.pinned._vectors @ embedder.encode_query([Item(text=sentence)])[0]
    np.testing.assert_allclose([hit.score for hit in results], sorted(expected)[::-1][:3], atol=1e-6)


def test_what_does_not_fit_at_once_is_written_one_by_one_and_a_failure_is_its_own(folder, pictures, monkeypatch):
    captioner = load_captioner(folder("blip"))
    expected = captioner.caption(pictures)
    model = captioner._model._model
    generate = model.generate
    poison = captioner._inputs(pictures[2])["pixel_values"]

    def small(**given):
        if len(given["pixel_values"]) > 1 or torch.equal(given["pixel_values"], poison):
            raise RuntimeError("not enough memory\nand more")
        return generate(**given)

    monkeypatch.setattr(model, "generate", small)
    captions = captioner.caption(pictures)
    assert [*captions[:2], captions[3]] == [*expected[:2], expected[3]]
    assert str(captions[2]) == f"{folder('blip')} failed: not enough memory"


def test_threads_share_a_model(folder):
    rewriter = load_rewriter(folder("chat"))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda each: rewriter.rewrite([each])[0], CHANGES)) == rewriter.rewrite(CHANGES)


def test_the_arithmetic_is_told(folder):
    assert models.settled_dtype(None, "cpu") is Dtype.FLOAT32
    assert models.settled_dtype(None, "cuda:1") is Dtype.BFLOAT16
    assert ChatModel.load(folder("chat"), dtype="bfloat16").identity()["dtype"] == "bfloat16"
    with pytest.raises(CallError, match="float16 is slow"):
        ChatModel.load(folder("chat"), dtype="float16")


def test_an_identity_follows_the_files(folder, tmp_path):
    copy = shutil.copytree(folder("chat"), tmp_path / "copy")
    before = load_rewriter(folder("chat")).identity()
    assert load_rewriter(copy).identity() == before
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps(config | {"repetition_penalty": 1.05}))
    assert load_rewriter(copy).identity() != before


def test_other_kinds_of_models_are_refused(folder, tmp_path):
    with pytest.raises(ModelError, match=r"of the type 'qwen2'; captioners are blip, blip-2, llava, qwen2_vl"):
        load_captioner(folder("chat"))
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        load_captioner("/no/where")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_rewriter(folder("blip"))
    with pytest.raises(ModelError, match="has no chat template"):
        load_rewriter(folder("chat", template=None))


def test_old_releases_of_transformers_are_refused(folder, monkeypatch):
    import transformers

    places = {load_captioner: folder("blip"), load_rewriter: folder("chat")}
    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    for load, place in places.items():
        with pytest.raises(MissingExtraError, match=r"pip install 'underdrawing\[caption\]'"):
            load(place)


def test_without_a_network_a_hub_id_says_how(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.setattr("indexer.embed.hub.reachable", lambda _: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=r"a/b is not on this machine and cannot be fetched: no network. Connect once"):
        load_captioner("a/b")


def test_from_the_hub_only_data_is_fetched(folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **given: asked.append((name, given)) or str(folder("chat"))
    )
    assert load_rewriter("someone/chat").name == "someone/chat"
    [(name, given)] = asked
    assert name == "someone/chat"
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in given["allow_patterns"])


@pytest.mark.parametrize("damage", ["cut", "missing", "pickle", "shape"])
def test_weights_that_are_not_all_there_are_refused(folder, tmp_path, damage):
    copy = shutil.copytree(folder("chat"), tmp_path / "copy")
    file = copy / "model.safetensors"
    weights = load_file(file)
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-100])
        case "missing":
            del weights["model.layers.1.mlp.up_proj.weight"]
            save_file(weights, file, {"format": "pt"})
        case "pickle":
            file.unlink()
            torch.save(weights, copy / "pytorch_model.bin")
        case "shape":
            weights["lm_head.weight"] = weights["lm_head.weight"][:, :8].contiguous()
            save_file(weights, file, {"format": "pt"})
    said = {
        "cut": "cannot be loaded",
        "shape": "lm_head.weight|mismatch",
        "missing": "1 weights .* are missing",
        "pickle": "no safetensors weights",
    }[damage]
    with pytest.raises(ModelError, match=said):
        load_rewriter(copy)


def test_code_of_a_checkpoint_is_not_run(folder, tmp_path):
    copy = shutil.copytree(folder("chat"), tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.OwnConfig"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_rewriter(copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("a red cat", "a red cat"),
        ('  "A red  cat."\n\nI kept the cat.', "A red cat."),
        ("Sentence: a red cat", "a red cat"),
        ("**Edited description:** “a red cat”", "a red cat"),
        ("<think>The cat\nis red.</think>\na red cat", "a red cat"),
        ("---\n*a red cat*", "a red cat"),
        ("une rue la nuit", "une rue la nuit"),
        ("夜の猫", "夜の猫"),
        ("a caption: with a colon", "a caption: with a colon"),
    ],
)
def test_the_sentence_in_an_answer(answer, sentence):
    assert sentence_in(answer) == sentence


@pytest.mark.parametrize("answer", ["", " \n", "...", "<think>I wonder", "42", "word " * MOST])
def test_an_answer_without_a_sentence(answer):
    assert isinstance(sentence_in(answer), WritingError)


def test_a_prompt_is_filled_once(tmp_path):
    assert filled("{caption} {text} {other} {}", caption="{text}", text="x{caption}") == "{text} x{caption} {other} {}"
    assert {"{caption}", "{text}"} <= set(read_prompt("rewrite.txt").split())
    (tmp_path / "own.txt").write_text(" {caption} + {text}\n")
    assert read_prompt(tmp_path / "own.txt") == "{caption} + {text}"
    with pytest.raises(ModelError, match="none.txt cannot be read"):
        read_prompt("none.txt")
