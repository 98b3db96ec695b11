"""The second stage of `train clip`: the text encoder alone, trained against the finished image vectors.

No image goes through a model here, so a step is cheap and can compare with every image of the corpus. The losses, each
a mean over its texts:

* `contrast`: a caption finds the images it describes, among all;
* `distillation` (with a teacher; Hinton et al. 2015, arXiv:1503.02531): a word's similarities to the concepts' mean
  images follow the teacher's similarities of the word to the concepts' names, so words that are in no caption land
  among the images they mean;
* `composed` (with `sentences` in the recipe): a network trained jointly turns an image into a pseudo-word; a sentence
  with it, and with what only another image's caption says, finds the other image. So the encoder learns to read
  pseudo-words, which text encoders trained on captions alone do badly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.textual_inversion import InversionConfig, PseudoWordReader, build_phi
from indexer.vectors.unit import unit_rows
from pipelines.train.clip.model import ClipRecipe
from pipelines.train.common.captions import Captions
from pipelines.train.common.composed import draw_composed, queries_of
from pipelines.train.common.differences import differences
from pipelines.train.common.losses import encode_tokens, similarities

if TYPE_CHECKING:
    from torch import Tensor, nn

Rows = npt.NDArray[np.int64]

WORD_ALONE = "{word}"


def word_network(recipe: ClipRecipe) -> nn.Module:
    """The network that turns (n, dim) images into (n, width of the text encoder) pseudo-words."""
    return build_phi(word_config(recipe), dropout=0.05)


def word_config(recipe: ClipRecipe, text_tower: str = "") -> InversionConfig:
    """The description of that network; `text_tower` is the sha256 of the finished model's weights."""
    return InversionConfig(
        feature_dim=recipe.dim,
        hidden_dim=2 * recipe.dim,
        word_dim=recipe.text["width"],
        normalized=True,
        template=recipe.sentences[0],
        text_tower=text_tower,
        recipe="together",
    )


class Distilled:
    """Words, and what a teacher says they mean.

    Args:
        tokens: (words, context) token ids.
        vectors: (words, teacher's dim) the teacher's vectors of the words.
        names: The trained concepts' names: the teacher's vector of each, (concepts, teacher's dim).
        means: (concepts, dim) unit rows: the concepts' mean images.
        softness: Temperature of the teacher's cosines.
    """

    def __init__(
        self, tokens: Tensor, vectors: npt.NDArray[np.float32], names: Tensor, means: Tensor, softness: float
    ) -> None:
        self._tokens, self._vectors, self._names, self._means = tokens, vectors, names, means
        self._softness = softness

    def loss(self, model: Any, count: int, scale: Tensor, rng: np.random.Generator) -> Tensor:
        """Cross entropy from the teacher's distribution over concepts to the student's, mean over `count` words."""
        import torch

        device = self._means.device
        chosen = rng.choice(len(self._tokens), min(count, len(self._tokens)), replace=False)
        # Words are shorter than captions; when alone, they are not padded to a caption's length.
        spoken = encode_tokens(model, self._tokens[chosen].to(device)).float()
        taught = torch.from_numpy(self._vectors[chosen]).to(device) @ self._names.T / self._softness
        learnt = similarities(spoken, self._means, scale)
        return -(taught.softmax(1) * learnt.log_softmax(1)).sum(1).mean()


class TextStage:
    """The losses of a step.

    Args:
        data: The captions of all images.
        rows: (n,) the rows to train on.
        images: (all rows, dim) unit rows, the finished image vectors.
        tokens: (captions, context) token ids.
        recipe: The settings.
    """

    def __init__(
        self, data: Captions, rows: Rows, images: npt.NDArray[np.float32], tokens: Tensor, recipe: ClipRecipe
    ) -> None:
        import torch

        self._data, self._rows, self._tokens, self._recipe = data, rows, tokens, recipe
        self._device = torch.device(recipe.device)
        self._images = torch.from_numpy(images).to(self._device)
        self._gallery = self._images[rows]
        self._place = np.full(len(images), -1, np.int64)
        self._place[rows] = np.arange(len(rows))
        self._true_of = data.true_of(rows)
        self._pairs = differences(data, rows, self._images, recipe.keep, recipe.tag_share) if recipe.sentences else None

    def contrast(self, model: Any, captions: Rows, scale: Tensor) -> Tensor:
        """Cross entropy of captions against all trained images; every image that a caption describes is right."""
        import torch

        said = encode_tokens(model, self._tokens[captions].to(self._device)).float()
        found = similarities(said, self._gallery, scale).log_softmax(1)
        owned = [self._true_of[caption] for caption in captions]
        lengths = [len(own) for own in owned]
        text = torch.from_numpy(np.repeat(np.arange(len(owned)), lengths)).to(self._device)
        share = torch.from_numpy(np.repeat(1 / np.array(lengths, np.float32), lengths)).to(self._device)
        return -(found[text, torch.from_numpy(np.concatenate(owned)).to(self._device)] * share).sum() / len(owned)

    def composed(
        self, model: Any, phi: nn.Module, reader: PseudoWordReader, scale: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Cross entropy of composed queries against all trained images."""
        import torch

        assert self._pairs is not None
        recipe = self._recipe
        batch = draw_composed(
            self._pairs, self._rows, recipe.batch, recipe.identity, recipe.sentences, (WORD_ALONE,), rng
        )
        images = self._images[batch.images]
        tokens, places = reader.tokenize_pieces(batch.texts)
        with reader.reading(places.to(self._device), phi(images)):
            said = encode_tokens(model, tokens.to(self._device)).float()
        # With the image's own vector in half of the queries, the sentence works both with it and without.
        shares = torch.from_numpy(recipe.image_share * (rng.random((len(said), 1)) < 0.5).astype(np.float32))
        queries = queries_of(said, batch, images, shares.to(self._device))
        answers = torch.from_numpy(self._place[batch.answers]).to(self._device)
        return torch.nn.functional.cross_entropy(similarities(queries, self._gallery, scale), answers)


def concept_means(
    data: Captions, rows: Rows, images: npt.NDArray[np.float32], names: list[str]
) -> npt.NDArray[np.float32]:
    """(len(names), dim) unit rows: the mean of the trained images of each name."""
    inside: dict[str, list[int]] = {name: [] for name in names}
    for row in rows:
        if data.names[row] in inside:
            inside[data.names[row]].append(int(row))
    return unit_rows(np.stack([images[own].mean(0) for own in inside.values()]))
