"""Captioners and chat models of a few thousand random weights, in the layouts in which the real ones are published."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

WORDS = "a the red blue cat dog heart night at in on with and sits runs small big two"
SPECIAL = [
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[DEC]", "<|endoftext|>", "<|im_start|>",
    "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KINDS = ("blip", "blip-2", "llava", "qwen2_vl", "qwen2_5_vl")


@cache
def _trained() -> str:
    """A byte-level tokenizer of a few hundred tokens, as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    return tokenizer.to_str()


def tokenizer(**names: str):
    """The tokenizer with its special tokens' roles."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_trained()), **names)


def tiny_chat(folder: Path, template: str | None = CHATML, seed: int = 0) -> Path:
    """A Qwen2 that answers with words in no order; without a template, it cannot chat."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    words.chat_template = template
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**_text(words), tie_word_embeddings=False))
    return _saved(folder, model, words, model.lm_head)


def tiny_captioner(folder: Path, kind: str, *, template: bool = True, seed: int = 0) -> Path:
    """An image-to-text model of a `model_type`; captions depend on the picture."""
    torch.manual_seed(seed)
    match kind:
        case "blip":
            return _blip(folder)
        case "blip-2":
            return _blip2(folder)
        case "llava":
            return _llava(folder, template)
        case _:
            return _qwen(folder, kind, template)


def _text(words, width: int = 32) -> dict[str, object]:
    return {
        "vocab_size": len(words), "hidden_size": width, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }  # fmt: skip


VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8, "initializer_range": 0.02,
}  # fmt: skip


def _images(kind, **options):
    return kind(do_resize=True, do_normalize=True, **options)


def _blip(folder: Path) -> Path:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    words = tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", bos_token="[DEC]")
    text = {
        "vocab_size": len(words), "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16, "max_position_embeddings": 128,
        "bos_token_id": words.bos_token_id, "eos_token_id": 2, "sep_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    config = BlipConfig(text_config=text, vision_config={**VISION, "projection_dim": 16}, projection_dim=16)
    model = BlipForConditionalGeneration(config)
    processor = BlipProcessor(_images(BlipImageProcessor, size={"height": 16, "width": 16}), words)
    return _saved(folder, model, processor, model.text_decoder.cls.predictions.decoder)


def _blip2(folder: Path) -> Path:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
    )  # fmt: skip

    words = tokenizer(pad_token="<pad>", bos_token="</s>", eos_token="</s>", unk_token="<unk>")
    text = OPTConfig(
        vocab_size=len(words), hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
        word_embed_proj_dim=32, max_position_embeddings=160, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**VISION).to_dict(),
        qformer_config=Blip2QFormerConfig(
            vocab_size=10, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            encoder_hidden_size=32,
        ).to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    model = Blip2ForConditionalGeneration(config)
    processor = Blip2Processor(_images(BlipImageProcessor, size={"height": 16, "width": 16}), words, num_query_tokens=4)
    return _saved(folder, model, processor, model.language_model.lm_head)


def _llava(folder: Path, template: bool) -> Path:
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )  # fmt: skip

    words = tokenizer(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    words.image_token = "<image>"
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION).to_dict(),
        text_config=LlamaConfig(**_text(words)).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    model = LlavaForConditionalGeneration(config)
    pictures = _images(CLIPImageProcessor, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHATML.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>\n") if template else None,
    )  # fmt: skip
    return _saved(folder, model, processor, model.lm_head)


def _qwen(folder: Path, kind: str, template: bool) -> Path:
    import transformers
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    words = tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    number = words.convert_tokens_to_ids
    older = kind == "qwen2_vl"
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    vision = {"depth": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
    if older:
        vision |= {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    else:
        vision |= {
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "window_size": 16,
            "fullatt_block_indexes": [1],
        }  # fmt: skip
    family = "Qwen2VL" if older else "Qwen2_5_VL"
    config = getattr(transformers, f"{family}Config")(
        text_config={**_text(words), "rope_parameters": rotary}, vision_config=vision,
        image_token_id=number("<|image_pad|>"), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"), vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    pictures = Qwen2VLImageProcessor(size={"shortest_edge": 8 * 8, "longest_edge": 32 * 32}, **sizes)
    videos = Qwen2VLVideoProcessor(size={"shortest_edge": 8 * 8, "longest_edge": 32 * 32}, **sizes)
    kinds = getattr(transformers, f"{family}Processor")
    processor = kinds(pictures, words, videos, chat_template=CHATML if template else None)
    return _saved(folder, model, processor, model.lm_head)


def _saved(folder: Path, model, processor, head) -> Path:
    """Random weights say one token for ever: these look at what they read, and say words."""
    words = getattr(processor, "tokenizer", processor)
    silent = [
        number
        for token, number in words.get_vocab().items()
        if not (token.strip("Ġ").isascii() and token.strip("Ġ").isalpha())
    ]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(6 if "embed" in name else 25)
        head.weight[silent] = 0
        if head.bias is not None:
            head.bias.zero_()
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
