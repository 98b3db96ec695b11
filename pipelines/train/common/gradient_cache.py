"""Gradients of a loss over a whole batch, in the memory of one part of it.

A contrastive loss needs the vectors of the whole batch, and backpropagation the activations of all: so memory limits
the batch, and with it the negatives. But the loss depends on a part through its vectors alone. So all parts are encoded
once without activations, the loss gives the gradient of each vector, and each part is encoded again and its gradient
backpropagated. It costs one more forward pass, and the gradients are those of the whole batch.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021, arXiv:2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Part = TypeVar("Part")


def backward(
    encode: Callable[[Part], Tensor], parts: Sequence[Part], loss: Callable[[Tensor], Tensor], *, cached: bool
) -> float:
    """Add the gradients of a loss to those of the parameters; returns the loss.

    Args:
        encode: Maps a part to its vectors, (rows, dim); its randomness must come from torch's generators.
        parts: The batch, in parts.
        loss: Maps the vectors of all parts, in order, to one number.
        cached: Whether parts are encoded twice, to hold the activations of one at a time. Otherwise all are held.
    """
    import torch

    if not cached:
        value = loss(torch.cat([encode(part) for part in parts]))
        torch.autograd.backward([value])
        return value.item()
    states, rows = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state())
            rows.append(encode(part))
    vectors = torch.cat(rows).requires_grad_()
    value = loss(vectors)
    torch.autograd.backward([value])
    assert vectors.grad is not None
    after = _random_state()
    gradients = torch.split(vectors.grad, [len(each) for each in rows])
    for part, state, gradient in zip(parts, states, gradients, strict=True):
        _set_random_state(state)  # the same dropout as before
        torch.autograd.backward([encode(part)], [gradient])
    _set_random_state(after)
    return value.item()


def _random_state() -> tuple[Tensor, list[Tensor]]:
    import torch

    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
