"""Training of an inversion: the network that turns an image's feature into a pseudo-word of a frozen text encoder.

There are four methods, each from images and their texts alone, without triplets:

* `pic2word` (Saito et al., CVPR 2023, arXiv:2302.03084): the text "a photo of {word}" and its image find each other in
  a batch. Published: AdamW 1e-4, weight decay 0.1, batch 1,024, 30 epochs of CC3M, dropout 0.1.
* `searle` (Baldrati et al., ICCV 2023, arXiv:2303.15247): a pseudo-word is first optimized for each image separately
  (cosine, 350 steps, learning rate 2e-2), then Phi learns to predict it (contrastive, temperature 0.25; 1e-4, batch
  256). The regularization by a language model's phrases is left out.
* `lincir` (Gu et al., CVPR 2024, arXiv:2312.01998): no images at all. A caption's own vector, with noise, is turned
  into a pseudo-word, which replaces every content word of the caption; the vector should stay the same (mean square).
  Published: 1e-4, batch 512, 20,000 steps. Content words are found with a list of function words, not with a tagger.
* `difference` (ours): two images whose captions differ in a few words; the pseudo-word of one, with the words that only
  the other has, finds the other. It trains on composed queries without anyone writing queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Entry
from indexer.embed.base import TrainableEncoder
from indexer.embed.textual_inversion import Inversion, InversionConfig, build_phi
from indexer.errors import CallError
from indexer.files.atomic import atomic_path
from indexer.types import HelpfulEnum, Item, Role, Vectors
from pipelines.train.common.captions import Captions, Templates, documents_with_both, nothing_to_train_on
from pipelines.train.common.composed import composed_loss, draw_composed
from pipelines.train.common.differences import Differences, differences
from pipelines.train.common.fit import Stateful, Trainer, backward, fit
from pipelines.train.common.losses import distil, encode_tokens, masked, match
from pipelines.train.common.recipe import CorpusRecipe
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, move_average

if TYPE_CHECKING:
    from torch import Tensor, nn


class InversionMethod(HelpfulEnum):
    """Methods of training an inversion; see the module."""

    PIC2WORD = "pic2word"
    SEARLE = "searle"
    LINCIR = "lincir"
    DIFFERENCE = "difference"


@dataclass(frozen=True)
class InversionRecipe(CorpusRecipe):
    """Everything a run depends on besides the corpus: these fields, and those of `CorpusRecipe`.

    Attributes:
        method: One of `InversionMethod`.
        model: The embedder whose text encoder reads the pseudo-words, a CLIP model.
        prompts: Texts around a pseudo-word alone; each has `{word}`.
        sentences: Texts around a pseudo-word and the change; each has `{word}` and `{text}`.
        hidden: Width of Phi's hidden layers, as a multiple of the feature's.
        dropout: Dropout of Phi.
        feature_noise: Standard deviation, over the whole vector, of noise on the image's feature.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        optimise_steps: `searle`: steps for each image's own pseudo-word.
        optimise_rate: `searle`: their learning rate.
        temperature: `searle`: temperature of the distillation.
        image_share: `difference`: weight of the image's own vector in the query, beside the sentence's.
        identity: `difference`: share of a batch in which the pseudo-word alone should find its own image.
    """

    method: str = InversionMethod.DIFFERENCE.value
    model: str = "bundled:emoji-clip"
    prompts: Sequence[str] = ("a photo of {word}",)
    sentences: Sequence[str] = ("{word}, {text}",)
    hidden: int = 4
    dropout: float = 0.1
    feature_noise: float = 0.0
    average: float = 0.99
    optimise_steps: int = 150
    optimise_rate: float = 2e-2
    temperature: float = 0.25
    image_share: float = 0.0
    identity: float = 0.5


def train_inversion(records: Iterable[Entry], recipe: InversionRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished inversion is in `folder/model`.

    Args:
        records: The corpus.
        recipe: The settings.
        folder: The run's folder; a checkpoint in it is resumed.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The model has no text encoder that reads pseudo-words, the corpus has nothing to train on, or the
            folder holds another run.
        UnknownNameError: No such method.
    """
    from indexer.embed import load_embedder

    method = InversionMethod(recipe.method)
    embedder = load_embedder(recipe.model, device=recipe.device)
    if not isinstance(embedder, TrainableEncoder):
        raise CallError(
            f"{recipe.model} has no text encoder that reads pseudo-words.", "Use a model of the CLIP family."
        )
    run = RunFolder.start(folder, recipe)
    data, features = _read_corpus(records, embedder, recipe)
    trainer = _Trainer(data, features, recipe, method, embedder, run)
    measured = fit(run, trainer, unit="words")
    trainer.inversion().save(folder / "model")
    run.plot({
        "loss": ["loss"],
        "word to its image, R@1": ["train_r1", "validation_r1"],
        "words per second": ["words_per_second"],
    })  # fmt: skip
    return measured


def _read_corpus(
    records: Iterable[Entry], embedder: TrainableEncoder, recipe: InversionRecipe
) -> tuple[Captions, Vectors]:
    """Captions and unit features of all documents that have a text and a readable image."""
    data = Captions(Templates(recipe.templates, recipe.values), recipe.split_field, recipe.look)
    features = [np.empty((0, embedder.dim), np.float32)]
    documents = documents_with_both(records, [])
    while chunk := list(itertools.islice(documents, 512)):
        embedded = embedder.try_encode([Item(image=document.image) for document in chunk], Role.DOCUMENT)
        features.append(embedded.vectors)
        for row in embedded.rows:
            data.add(chunk[row])
    if not len(data):
        raise nothing_to_train_on()
    return data, np.concatenate(features)


class _Trainer(Trainer[InversionRecipe]):
    """The network and its moving average."""

    def __init__(
        self,
        data: Captions,
        features: Vectors,
        recipe: InversionRecipe,
        method: InversionMethod,
        embedder: TrainableEncoder,
        run: RunFolder,
    ) -> None:
        import torch

        super().__init__(recipe, [Stage(recipe.steps, recipe.peak)])
        self.data, self.method = data, method
        self.embedder, self.run = embedder, run
        self.reader = embedder.pseudo_word_reader
        embedder.model.requires_grad_(False)
        self.scale = float(embedder.model.logit_scale.exp().clamp(max=100))
        self.device = torch.device(recipe.device)
        self.rows = data.rows(recipe.train_part if recipe.split_field else None)
        self.features = torch.from_numpy(features).to(self.device)
        dim = self.features.shape[1]
        self.config = InversionConfig(
            feature_dim=dim,
            hidden_dim=recipe.hidden * dim,
            word_dim=self.reader.word_dim,
            normalized=True,
            template=recipe.sentences[0],
            text_tower=embedder.fingerprint().weights,
            recipe=method.value,
        )
        torch.manual_seed(recipe.seed)
        self.phi = build_phi(self.config, recipe.dropout).to(self.device)
        self.averaged = build_phi(self.config).to(self.device).eval()
        self.averaged.load_state_dict(self.phi.state_dict())
        self.optimiser = torch.optim.AdamW(self.phi.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay)

    def parts(self) -> Mapping[str, Stateful]:
        return {"phi": self.phi, "averaged": self.averaged, "optimiser": self.optimiser}

    def trained(self) -> Iterable[nn.Parameter]:
        parameters: Iterable[nn.Parameter] = self.phi.parameters()
        return parameters

    def average(self) -> None:
        pairs = zip(self.averaged.parameters(), self.phi.parameters(), strict=True)
        move_average(pairs, self.recipe.average, self.step)

    def inversion(self) -> Inversion:
        """The current inversion."""
        return Inversion(self.config, self.averaged, "")

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        import torch

        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        self.phi.train()
        match self.method:
            case InversionMethod.PIC2WORD:
                loss = self._pic2word(rng)
            case InversionMethod.SEARLE:
                loss = self._searle(rng)
            case InversionMethod.LINCIR:
                loss = self._lincir(rng)
            case InversionMethod.DIFFERENCE:
                loss = self._difference(rng)
        return {"loss": backward(loss)}

    def _draw(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        return rng.choice(self.rows, self.recipe.batch, replace=len(self.rows) < self.recipe.batch)

    def _noisy(self, features: Tensor, rng: np.random.Generator) -> Tensor:
        """Unit features with noise of a given length, at unit length again."""
        import torch

        if not self.recipe.feature_noise:
            return features
        noise = torch.from_numpy(rng.standard_normal(features.shape).astype(np.float32)).to(self.device)
        noisy = features + self.recipe.feature_noise / features.shape[1] ** 0.5 * noise
        return torch.nn.functional.normalize(noisy, dim=-1)

    def _read(self, texts: Sequence[Sequence[str]], words: Tensor) -> Tensor:
        """Unit vectors of texts with pseudo-words between their pieces."""
        tokens, places = self.reader.tokenize_pieces(texts)
        with self.reader.reading(places.to(self.device), words):
            return encode_tokens(self.embedder.model, tokens.to(self.device))

    def _pic2word(self, rng: np.random.Generator) -> Tensor:
        rows = self._draw(rng)
        images = self.features[rows]
        prompts = [str(rng.choice(self.recipe.prompts)).split("{word}") for _ in rows]
        said = self._read(prompts, self.phi(self._noisy(images, rng)))
        return match(said, images, self.scale)

    def _searle(self, rng: np.random.Generator) -> Tensor:
        rows = rng.choice(len(self._optimised[0]), self.recipe.batch, replace=True)
        inside, taught = self._optimised[0][rows], self._optimised[1][rows]
        given = self.phi(self._noisy(self.features[inside], rng))
        return distil(given, taught, self.recipe.temperature)

    def _lincir(self, rng: np.random.Generator) -> Tensor:
        import torch

        captions = [self.data.texts[number] for number in self.data.draw(self._draw(rng), rng)]
        with torch.no_grad():
            vectors = self._read([[caption] for caption in captions], torch.zeros(len(captions), self.reader.word_dim))
        # One noise level per caption, drawn anew: this covers the gap between texts and images at every width.
        size = torch.from_numpy(rng.random((len(captions), 1)).astype(np.float32)).to(self.device)
        noise = torch.from_numpy(rng.standard_normal(vectors.shape).astype(np.float32)).to(self.device)
        noisy = torch.nn.functional.normalize(vectors + size * noise / vectors.shape[1] ** 0.5, dim=-1)
        again = self._read([masked(caption) for caption in captions], self.phi(noisy))
        # Unit vectors, so mean square and cosine give the same order; the sum keeps gradients at a useful scale.
        return (again - vectors).square().sum(1).mean()

    def _difference(self, rng: np.random.Generator) -> Tensor:
        recipe = self.recipe
        batch = draw_composed(
            self._pairs, self.rows, recipe.batch, recipe.identity, recipe.sentences, recipe.prompts, rng
        )
        images = self._noisy(self.features[batch.images], rng)
        said = self._read(batch.texts, self.phi(images))
        return composed_loss(said, batch, images, self.features, recipe.image_share, self.scale)

    @cached_property
    def _pairs(self) -> Differences:
        return differences(self.data, self.rows, self.features, self.recipe.keep)

    @cached_property
    def _optimised(self) -> tuple[Tensor, Tensor]:
        """Rows, and the pseudo-word that was optimized for each (stored beside the run)."""
        import torch

        file = self.run.path / "optimised.npz"
        if not file.exists():
            words = np.concatenate([
                self._optimise(self.rows[start : start + self.recipe.batch])
                for start in range(0, len(self.rows), self.recipe.batch)
            ])  # fmt: skip
            with atomic_path(file) as temporary:
                np.savez(temporary, rows=self.rows, words=words)
        with np.load(file) as found:
            return torch.from_numpy(found["rows"]), torch.from_numpy(found["words"]).to(self.device)

    def _optimise(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        import torch

        rng = np.random.default_rng([self.recipe.seed, int(rows[0])])
        spread = float(self.reader.embedding.weight.std())
        start = rng.standard_normal((len(rows), self.reader.word_dim)).astype(np.float32) * spread
        words = torch.nn.Parameter(torch.from_numpy(start).to(self.device))
        averaged = words.detach().clone()
        optimiser = torch.optim.AdamW([words], lr=self.recipe.optimise_rate, weight_decay=0.01)
        for _ in range(self.recipe.optimise_steps):
            prompt = str(rng.choice(self.recipe.prompts)).split("{word}")
            said = self._read([prompt] * len(rows), words)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward([(1 - (said * self.features[rows]).sum(1)).sum()])
            optimiser.step()
            averaged.lerp_(words.detach(), 1 - 0.95)
        return averaged.cpu().numpy()

    def evaluate(self) -> dict[str, float]:
        """How often an image's pseudo-word, read in the first prompt, is nearest to the image in the whole corpus."""
        import torch

        rng = np.random.default_rng(self.recipe.seed)
        parts = {"train": self.recipe.train_part, "validation": self.recipe.validation_part}
        measured = {}
        for label, part in parts.items() if self.recipe.split_field else [("train", None)]:
            rows = self.data.rows(part)
            rows = rng.choice(rows, min(500, len(rows)), replace=False)
            if not len(rows):
                continue
            with torch.inference_mode():
                words = self.averaged(self.features[rows])
                said = self._read([self.recipe.prompts[0].split("{word}")] * len(rows), words)
                scores = said @ self.features.T
            own = scores[torch.arange(len(rows)), torch.from_numpy(rows)][:, None]
            measured[f"{label}_r1"] = float(((scores > own).sum(1) == 0).float().mean())
        return measured
