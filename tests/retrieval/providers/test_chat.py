"""Chat models prompted with examples, and models in one GGUF file."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tiny_writers

from indexer.errors import MissingExtraError, ModelError, WriterAwayError, WritingError
from retrieval.providers.language import Change, Question, chat, load_chat, load_rewriter, models
from retrieval.providers.language.answers import read_turns

TOKENS = 10
EXAMPLES = ("a cat at night", "a dog", "the red heart", "big")
ASKED = [Question((*EXAMPLES, text)) for text in ("a cat", "a dog", "a big dog runs on the red heart", "a")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_writers.tiny_chat(tmp_path_factory.mktemp("chat") / "model")


def endless(answer):
    return isinstance(answer, WritingError) and "no end within" in answer.message


def said(answer):
    return answer.message.partition(": ")[2] if isinstance(answer, WritingError) else answer


def test_examples_that_are_read_once_change_no_answer(folder, monkeypatch):
    model = load_chat(folder)
    read = []
    real = models.TextModel._read
    monkeypatch.setattr(models.TextModel, "_read", lambda self, opening: read.append(opening) or real(self, opening))
    answers = [said(each) for each in model.ask(ASKED, tokens=TOKENS)]
    assert len(read) == 1
    monkeypatch.setattr(chat.ChatModel, "_opening", lambda *_: None)
    assert answers == [said(each) for each in model.ask(ASKED, tokens=TOKENS)]
    assert answers == [said(model.ask([each], tokens=TOKENS)[0]) for each in ASKED]
    assert len(set(answers)) > 1


def test_examples_change_answers(folder):
    model = load_chat(folder)
    alone = model.ask([Question((each.turns[-1],)) for each in ASKED], tokens=TOKENS)
    assert [said(each) for each in alone] != [said(each) for each in model.ask(ASKED, tokens=TOKENS)]


def test_an_answer_that_is_cut_off_is_none(folder):
    assert all(endless(each) for each in load_chat(folder).ask(ASKED, tokens=2))


def test_what_a_model_that_chats_is_called_does_not_matter(folder):
    one, other = load_chat(folder), load_chat(f"chat:{folder}")
    assert one.chat_identity() == other.chat_identity()
    assert "prompt" not in one.chat_identity()


def test_an_endpoint_that_is_away_is_told_from_one_that_fails(monkeypatch):
    from fake_endpoint import serving

    from retrieval.providers.language import endpoint

    monkeypatch.setattr(endpoint.time, "sleep", lambda _: None)
    with serving() as server:
        asker = endpoint.Endpoint("tiny", server.url)
        server.answers = [(400, {}, "{}"), (200, {}, "nonsense"), "fine", (503, {}, "{}")]
        kinds = [asker.ask([Question(("?",))], tokens=1)[0] for _ in range(4)]
    assert [type(each) for each in kinds] == [WritingError, WritingError, str, WriterAwayError]


def test_turns_are_parts_between_lines(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("one -- line\n---\ntwo\n\nlines\n-----\nthree\n")
    assert read_turns(file) == ("one -- line", "two\n\nlines", "three")


# -- GGUF


def gguf_file(folder, name="model.gguf", seed=0, width=32):
    """A Llama of random weights in the layout of llama.cpp's own converter, with tiny_writers' tokenizer."""
    import json

    import gguf

    words = tiny_writers.tokenizer(
        eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<s>", unk_token="<unk>"
    )
    known = json.loads(words.backend_tokenizer.to_str())["model"]
    rng = np.random.default_rng(seed)
    out = gguf.GGUFWriter(folder / name, "llama")
    out.add_block_count(2)
    out.add_context_length(256)
    out.add_embedding_length(width)
    out.add_feed_forward_length(48)
    out.add_head_count(2)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10_000.0)
    out.add_vocab_size(len(words))
    out.add_tokenizer_model("gpt2")
    out.add_token_list(sorted(words.get_vocab(), key=words.get_vocab().get))
    special = {*words.get_added_vocab()}
    out.add_token_types(
        [3 if token in special else 1 for token in sorted(words.get_vocab(), key=words.get_vocab().get)]
    )
    out.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in known["merges"]])
    out.add_eos_token_id(words.eos_token_id)
    out.add_bos_token_id(words.bos_token_id)
    out.add_pad_token_id(words.pad_token_id)
    out.add_unk_token_id(words.unk_token_id)
    out.add_chat_template(tiny_writers.CHATML)

    def tensor(name, *shape, scale=0.5):
        out.add_tensor(name, (scale * rng.standard_normal(shape)).astype(np.float32))

    tensor("token_embd.weight", len(words), width)
    tensor("output.weight", len(words), width)
    out.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(2):
        out.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(width, np.float32))
        out.add_tensor(f"blk.{layer}.ffn_norm.weight", np.ones(width, np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{part}.weight", width, width)
        tensor(f"blk.{layer}.ffn_gate.weight", 48, width)
        tensor(f"blk.{layer}.ffn_up.weight", 48, width)
        tensor(f"blk.{layer}.ffn_down.weight", width, 48)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return folder / name


@pytest.fixture(scope="module")
def one_file(tmp_path_factory):
    return gguf_file(tmp_path_factory.mktemp("gguf"))


def test_a_gguf_file_is_a_chat_model_by_itself_and_by_its_folder(one_file, capfd):
    model = load_chat(one_file)
    answers = [said(each) for each in model.ask(ASKED, tokens=TOKENS)]
    assert answers == [said(each) for each in load_chat(one_file.parent).ask(ASKED, tokens=TOKENS)]
    assert load_rewriter(str(one_file)).rewrite([Change("a cat", "at night")])
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")  # no bars


def test_the_weights_are_those_of_the_file(one_file, tmp_path):
    other = gguf_file(tmp_path, seed=1)
    assert load_chat(one_file).chat_identity() != load_chat(other).chat_identity()
    weights = [load_chat(each)._model._model.model.embed_tokens.weight[0, 0].item() for each in (one_file, other)]
    assert weights[0] == pytest.approx(0.5 * np.random.default_rng(0).standard_normal(), abs=1e-6)
    assert weights[1] == pytest.approx(0.5 * np.random.default_rng(1).standard_normal(), abs=1e-6)


def test_a_folder_with_two_files_is_not_guessed_at(one_file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(one_file.read_bytes())
    with pytest.raises(ModelError, match="2 GGUF files"):
        load_chat(tmp_path)


def test_a_broken_or_missing_file_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\0\0\0\0" * 4)
    for name in ("broken.gguf", "none.gguf"):
        with pytest.raises(ModelError, match=str(tmp_path)):
            load_chat(tmp_path / name)


def test_a_gguf_file_needs_its_package(one_file, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else real(name, *rest))
    with pytest.raises(MissingExtraError, match=r"underdrawing\[gguf\]"):
        load_chat(one_file)
