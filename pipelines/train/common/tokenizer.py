"""Training of a small byte-level BPE tokenizer on captions, in the layout that transformers loads.

Byte-level, so that no text is unknown; BPE, since the trainer of WordPiece breaks ties at random, so that the same
captions would give different tokenizers.

The end token has the largest id, because open_clip's default pooling takes the position of the largest id as the end of
the text.

There are two kinds: one for a CLIP text encoder, with start and end tokens, and one in the layout of Qwen2-VL's, whose
special tokens are part of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from indexer.errors import MissingExtraError

PAD, START, END = "[PAD]", "[START]", "[END]"
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int, folder: Path) -> None:
    """Learn a lower-casing vocabulary and save it to `folder`.

    Args:
        texts: What to learn from.
        vocabulary: Number of tokens, including the 256 bytes and three special ones.
        context: Tokens of a text, start and end included; longer texts lose their end, never the end token.
        folder: Receives `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Raises:
        MissingExtraError: The `tokenizers` package is not installed.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    except ImportError:
        raise MissingExtraError("tokenizers", "train", "Training a tokenizer") from None
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=[PAD, START],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END])
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, tokenizer.token_to_id(START)), (END, end)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": PAD, "bos_token": START, "eos_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def train_qwen_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Learn a vocabulary in the layout of Qwen2-VL's tokenizer, but in lower case, and save it to `folder`.

    Args:
        texts: What to learn from, including the instructions.
        vocabulary: Number of tokens, including the 256 bytes and the special ones.
        folder: Receives `tokenizer.json` and `tokenizer_config.json`.

    Raises:
        MissingExtraError: The `tokenizers` package is not installed.
    """
    try:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError:
        raise MissingExtraError("tokenizers", "train", "Training a tokenizer") from None
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(QWEN_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # After the words, as in the published ones.
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in QWEN_SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": QWEN_SPECIAL[0], "eos_token": QWEN_SPECIAL[2]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32768, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def compact(file: Path) -> bytes:
    """A tokenizer's file without the blanks and line breaks that make it three times as long."""
    return json.dumps(json.loads(file.read_bytes()), ensure_ascii=False, separators=(",", ":")).encode()
