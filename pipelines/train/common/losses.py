"""The losses of pseudo-words and of their text encoders, the vectors that they compare, and LinCIR's masks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FUNCTION_WORDS = frozenset(
    "a an and are as at be by facing for from in into is it its no not of off on or out over than that the their this "
    "to under up with without".split()
)


def masked(caption: str) -> list[str]:
    """A caption in pieces, with a place for a pseudo-word in place of content words.

    Adjacent content words become one place, as in LinCIR; punctuation and function words stay.
    """
    pieces, inside = [""], False
    for part in re.findall(r"[\w'-]+|[^\w'-]+", caption):
        if not re.match(r"[\w'-]", part):
            pieces[-1] += "" if inside and not part.strip() else part
        elif part.lower() in FUNCTION_WORDS:
            pieces[-1] += " " + part
            inside = False
        elif not inside:
            pieces.append("")
            inside = True
        if part.strip() and not re.match(r"[\w'-]", part):
            inside = False
    return pieces if len(pieces) > 1 else ["", ""]


def similarities(left: Tensor, right: Tensor, scale: Tensor | float) -> Tensor:
    """Scaled inner products (n, m) of rows (n, dim) and (m, dim), in float32 whatever autocast says.

    At a scale of 50 to 100, adjacent bfloat16 numbers differ by half a unit, as much as similar images differ.
    """
    import torch

    with torch.autocast(left.device.type, enabled=False):
        return scale * left.float() @ right.float().T


def match(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Symmetric cross entropy of a batch of pairs (n, dim) of unit rows."""
    import torch

    logits = similarities(left, right, scale)
    own = torch.arange(len(logits), device=logits.device)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, own) + entropy(logits.T, own)) / 2


def match_many(answers: Tensor, gallery: Tensor, same: Tensor, scale: float) -> Tensor:
    """Cross entropy of answers (n, dim) against a gallery (m, dim) whose first n rows belong to them.

    Other right rows of the gallery, (n, m) bool, count neither for nor against.
    """
    import torch

    logits = similarities(answers, gallery, scale)
    own = torch.arange(len(logits), device=logits.device)
    ignored = same.clone()
    ignored[own, own] = False
    return torch.nn.functional.cross_entropy(logits.masked_fill(ignored, float("-inf")), own)


def distil(given: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """SEARLE's loss: each pseudo-word finds its teacher in the batch, and the other way round (cosine)."""
    import torch

    left, right = (torch.nn.functional.normalize(each, dim=-1) for each in (given, taught))
    return match(left, right, 1 / temperature)


def encode_tokens(model: Any, tokens: Tensor) -> Tensor:
    """`model.encode_text` on unit rows, without the padding after the longest text if possible.

    In open_clip's own text encoder of a model with two separate encoders, attention is causal, so padding changes
    nothing and costs time. It adds its whole mask whatever the length, so the mask is cut to the length meanwhile.
    """
    mask = getattr(getattr(model, "text", None), "attn_mask", None)
    if mask is None:
        whole: Tensor = model.encode_text(tokens, normalize=True)
        return whole
    length = int((tokens != 0).sum(1).max())
    model.text.attn_mask = mask[:length, :length]
    try:
        vectors: Tensor = model.encode_text(tokens[:, :length], normalize=True)
    finally:
        model.text.attn_mask = mask
    return vectors
