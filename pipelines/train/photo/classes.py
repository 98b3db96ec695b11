"""The image encoder's own classifier as a teacher: a photo should be near the names of what it shows.

A few thousand captioned photos show a small part of the world. The frozen encoder was trained on a thousand classes,
and its classifier, which the connectors replace, still knows them. So photos are also compared with the names of
classes, with the classifier's output as the target (Hinton et al. 2015, arXiv:1503.02531). For classes that no photo
shows, features are synthesized: the mean is moved along a class's weights, where the features of its photos lie (Papyan
et al. 2020, "neural collapse", arXiv:2008.08186), and mixed with the residual of real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

WORDINGS = ("{name}", "a photo of {name}", "a photo of the {last}", "{names}")
LEAST, MOST = 8.0, 20.0
"""How far a synthesized feature lies along its class's weights, as real features do."""
CEILING = 6.0
"""Where the activation is clipped."""


def class_texts() -> list[list[str]]:
    """The names of the thousand classes, each in several wordings, from timm's list."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    texts = []
    for number in range(1000):
        names = info.index_to_description(number)
        each = [name.strip() for name in names.split(",")]
        texts.append([wording.format(name=each[0], last=each[-1], names=names) for wording in WORDINGS])
    return texts


class ClassTeacher:
    """The classifier, and features synthesized from it.

    Args:
        classifier: A linear layer of a thousand outputs.
    """

    def __init__(self, classifier: Any) -> None:
        self._weights = classifier.weight.detach().float()
        self._bias = classifier.bias.detach().float()
        centered = self._weights - self._weights.mean(0)
        self._directions = centered / centered.norm(dim=1, keepdim=True)

    def shares(self, late: Tensor) -> Tensor:
        """The classifier's output for photos: (n, 1 + 9, 1280) features to (n, 1000) probabilities."""
        found: Tensor = (late[:, 0].float() @ self._weights.T + self._bias).softmax(1)
        return found

    def made_up(self, late: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, npt.NDArray[np.int64]]:
        """Features of random classes, each with the residual of a real photo.

        Args:
            late: (n, 1 + 9, 1280) features of photos.
            count: Number of features.
            rng: Random generator of the step.

        Returns:
            (count, 1 + 9, 1280), and the rows of the photos that gave the residuals, (count,).
        """
        import torch

        def drawn(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(late.device)

        rows, classes = rng.integers(0, len(late), count), rng.integers(0, len(self._weights), count)
        mean = late[:, :1].mean(0, keepdim=True)
        where = drawn(rng.random((count, late.shape[1], 1)) < rng.uniform(0.3, 1, (count, 1, 1)))
        where[:, 0] = where[:, 1:].mean(1)
        length = drawn(rng.uniform(LEAST, MOST, (count, 1, 1)))
        rest = drawn(rng.uniform(0.2, 0.8, (count, 1, 1)))
        moved = mean + rest * (late[rows] - mean) + length * where * self._directions[classes][:, None].to(late)
        return moved.clamp(0, CEILING), rows


def named_classes(shares: Tensor, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Classes to choose from: first the three most probable of each photo, then random ones."""
    likely = np.unique(shares.topk(3).indices.cpu().numpy())
    if len(likely) > count:
        return np.sort(rng.choice(likely, count, replace=False))
    rest = np.setdiff1d(np.arange(shares.shape[1]), likely)
    more = rng.choice(rest, min(count - len(likely), len(rest)), replace=False)
    return np.sort(np.concatenate([likely, more]))
