"""Bridges of a few thousand random weights, between towers and text models in the layouts of the real ones."""

from __future__ import annotations

from pathlib import Path

import tiny_models
import tiny_writers
import torch

from indexer.embed import load_embedder
from indexer.embed.bridge.connector import Connector, ConnectorConfig, build_bridge, start_bridge
from indexer.embed.bridge.embedder import BridgeSpec, save_bridge
from indexer.embed.bridge.text_model import TextModel
from indexer.types import Item

WIDTH = 32
QFORMER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "cross_attention_frequency": 1, "initializer_range": 0.3,
}  # fmt: skip


def tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """A BERT as MiniLM is published: tokens around every text, lengths in its tokenizer that are not a bridge's."""
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    words = tiny_writers.tokenizer(unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|endoftext|>")
    ends = [("<|im_start|>", words.convert_tokens_to_ids("<|im_start|>")), ("<|im_end|>", words.eos_token_id)]
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=ends
    )
    words.backend_tokenizer.enable_truncation(5)
    words.backend_tokenizer.enable_padding(length=9)
    config = BertConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tiny_decoder(folder: Path, seed: int = 0) -> Path:
    """A Llama with its head, as SmolLM2 is published; nothing stands around a text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    words = tiny_writers.tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=False,
        eos_token_id=words.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tiny_text(folder: Path, kind: str, seed: int = 0) -> Path:
    """`encoder` or `decoder`."""
    return tiny_encoder(folder, seed) if kind == "encoder" else tiny_decoder(folder, seed)


def tiny_bridge(folder: Path, kind: str, text: Path, tower: Path) -> Path:
    """A bridge that was not trained, between a tower and a text model."""
    embedder = load_embedder(f"open_clip:{tower}")
    reader = TextModel.load(str(text), torch.float32, "cpu")
    places = embedder.patch_features([embedder.preparer()(Item(image=tiny_models.pictures(1)[0]))]).shape[1:]
    torch.manual_seed(0)
    config = ConnectorConfig(
        Connector(kind),
        *places,
        reader.word_width,
        reader.width,
        queries=5,
        qformer=QFORMER if kind == "qformer" else {},
    )
    bridge = build_bridge(config)
    start_bridge(bridge, reader.table())
    found = embedder.fingerprint()
    spec = BridgeSpec(
        f"open_clip:{tower}",
        found.weights,
        found.preprocessing,
        -1,
        str(text),
        reader.digest,
        reader.pooling,
        24,
        config,
    )
    save_bridge(folder, spec, bridge.state_dict())
    return folder


def tiny_gguf(file: Path, seed: int = 0) -> Path:
    """A Llama of one layer in a GGUF file, as llama.cpp's converter writes it."""
    import gguf
    import numpy as np

    rng = np.random.default_rng(seed)
    letters = sorted(gguf_alphabet())
    tokens = ["<|endoftext|>", "<|im_end|>", *letters, "re", "red"]
    writer = gguf.GGUFWriter(file, "llama")
    for add, value in (
        (writer.add_context_length, 128), (writer.add_embedding_length, 32), (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 48), (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
        (writer.add_rope_dimension_count, 8), (writer.add_rope_freq_base, 1e4), (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_vocab_size, len(tokens)), (writer.add_tokenizer_model, "gpt2"), (writer.add_token_list, tokens),
        (writer.add_token_types, [3, 3, *[1] * (len(tokens) - 2)]), (writer.add_token_merges, ["r e", "re d"]),
        (writer.add_bos_token_id, 0), (writer.add_eos_token_id, 1), (writer.add_pad_token_id, 0),
    ):  # fmt: skip
        add(value)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (0.3 * rng.standard_normal(shape)).astype(np.float32))

    tensor("token_embd.weight", len(tokens), 32)
    for name, shape in (
        ("attn_q", (32, 32)), ("attn_k", (16, 32)), ("attn_v", (16, 32)), ("attn_output", (32, 32)),
        ("ffn_gate", (48, 32)), ("ffn_up", (48, 32)), ("ffn_down", (32, 48)),
    ):  # fmt: skip
        tensor(f"blk.0.{name}.weight", *shape)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_alphabet() -> list[str]:
    """The characters by which byte-level tokenizers write bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()
