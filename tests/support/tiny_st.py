"""Models of sentence-transformers with a few thousand random weights, saved as the library saves them."""

from __future__ import annotations

from pathlib import Path

import tiny_models
import tiny_writers
import torch


def tiny_texts(folder: Path, *, prompts: dict[str, str] | None = None, seed: int = 0) -> Path:
    """A BERT with mean pooling and a dense layer: reads texts alone, with a prompt of its own for queries."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    words = tiny_writers.tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=words.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "bert")
    words.model_max_length = 64
    words.save_pretrained(folder / "bert")
    bert = Transformer(str(folder / "bert"))
    dense = Dense(32, 16, activation_function=torch.nn.Identity())
    model = SentenceTransformer(
        modules=[bert, Pooling(32), dense], device="cpu", prompts=prompts or {"query": "a night in ", "document": ""}
    )
    model.save(str(folder / "model"))
    return folder / "model"


def tiny_towers(folder: Path) -> Path:
    """A CLIP of two towers, which reads texts and pictures, one at a time."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    torch.manual_seed(0)
    words = tiny_models._tokenizer()
    text = {
        "vocab_size": 49408, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "initializer_range": 0.3,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8, "initializer_range": 0.3,
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder / "clip")
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(pictures, words).save_pretrained(folder / "clip")
    model = SentenceTransformer(modules=[Transformer(str(folder / "clip"))], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"
