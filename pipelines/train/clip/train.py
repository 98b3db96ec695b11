"""Training of an open_clip model on a captioned corpus, from random initialization or an earlier model.

The first stage trains both encoders with losses that are each a mean over the batch:

* contrast: images against captions, both ways (Radford et al. 2021, arXiv:2103.00020), where every caption that
  describes an image counts as its positive (UniCL's targets: Yang et al. 2022, arXiv:2204.03610);
* with a teacher, contrast of the images against a linear projection of the teacher's caption vectors, which ties the
  image space to the teacher's; captions that the teacher finds similar may be partly right (`kinship`).

The second stage trains the text encoder alone; see `text_stage.py`. With a teacher it learns words that are in no
caption, and with sentences to read pseudo-words.

Only the student is saved. The result is an open_clip folder, which `open_clip.create_model("local-dir:FOLDER")` loads,
and, if the recipe has sentences, the inversion network in a folder that `search --inversion` takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Entry
from indexer.embed.textual_inversion import Inversion, PseudoWordReader
from indexer.files.atomic import file_digest
from pipelines.train.clip.model import (
    WEIGHTS,
    ClipRecipe,
    build,
    copy_start,
    encode_pixels,
    encode_texts,
    export,
    load_start,
)
from pipelines.train.clip.teacher import MINILM_DIM, teacher_vectors, teacher_words
from pipelines.train.clip.text_stage import Distilled, TextStage, concept_means, word_config, word_network
from pipelines.train.common.augment import augment
from pipelines.train.common.batches import Batches
from pipelines.train.common.captions import CaptionedImages, Templates
from pipelines.train.common.fit import Stateful, Trainer, fit
from pipelines.train.common.losses import encode_tokens, similarities
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, decay_groups, move_average
from pipelines.train.common.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn


KINSHIP_TEMPERATURE = 0.07
"""Temperature of the teacher's cosines between captions: at 0.07, a caption's nearest ones get a few percent each."""


def train_clip(records: Iterable[Entry], recipe: ClipRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished model is in `folder/model`.

    Args:
        records: The corpus: an iterable of `Record` and `Rejected`.
        recipe: The settings.
        folder: The run's folder; checkpoints in it are resumed.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The corpus has no pair to train on, or the folder holds another run.
        MissingExtraError: An optional package that the recipe needs is not installed.
    """
    run = RunFolder.start(folder, recipe)
    templates = Templates(recipe.templates, recipe.values)
    data = CaptionedImages(records, recipe.vision["image_size"], templates, recipe.split_field, recipe.look)
    trainer = _Trainer(data, recipe, run)
    measured = fit(run, trainer)
    export(trainer.averaged, recipe, folder / "tokenizer", folder / "model")
    if recipe.sentences:
        trainer.inversion(file_digest(folder / "model" / WEIGHTS)).save(folder / "inversion")
    run.plot({
        "loss": ["loss", "contrast", "teacher_contrast", "distillation", "composed"],
        "image to text, R@10": ["train_r10", "validation_r10"],
        "images per second": ["images_per_second"],
    })  # fmt: skip
    return measured


class _Modules(list["nn.Module"]):
    """Modules whose states are saved as a list."""

    def state_dict(self) -> list[Any]:
        return [module.state_dict() for module in self]

    def load_state_dict(self, state: list[Any]) -> None:
        for module, values in zip(self, state, strict=True):
            module.load_state_dict(values)


class _Trainer(Trainer[ClipRecipe]):
    """The model, its teacher, and the network that makes pseudo-words, with their moving averages."""

    def __init__(self, data: CaptionedImages, recipe: ClipRecipe, run: RunFolder) -> None:
        import torch

        super().__init__(recipe, [Stage(recipe.steps, recipe.peak), Stage(recipe.text_steps, recipe.text_peak)])
        self.data = data
        self.device = torch.device(recipe.device)
        self.train_rows = data.rows(recipe.train_part if recipe.split_field else None)
        captions = data.captions_of(self.train_rows)
        words = teacher_words() if recipe.taught else []
        folder, context = run.path / "tokenizer", recipe.text["context_length"]
        if not (folder / "tokenizer_config.json").exists():
            if recipe.start is None:
                texts = [data.texts[number] for number in captions] + words
                train_tokenizer(texts, recipe.text["vocab_size"], context, folder)
            else:
                copy_start(recipe.start, folder)
        self.tokens = _tokenize(folder, data.texts, context)
        self.names = sorted(set(data.names))
        self.name_tokens = _tokenize(folder, self.names, context)
        torch.manual_seed(recipe.seed)
        self.model = build(recipe).to(self.device).to(memory_format=torch.channels_last)
        if recipe.start is not None:
            load_start(self.model, recipe.start)
        self.averaged = build(recipe).to(self.device)
        self.averaged.load_state_dict(self.model.state_dict())
        self.teacher: nn.Module | None = None
        if recipe.taught:
            self.word_tokens = _tokenize(folder, words, context)
            vectors = teacher_vectors([data.texts[number] for number in captions] + words, run.path / "teacher")
            self.caption_row = {int(number): row for row, number in enumerate(captions)}
            self.teacher_captions = vectors[: len(captions)]
            self.teacher_words = vectors[len(captions) :]
            self.teacher = torch.nn.Linear(MINILM_DIM, recipe.dim, bias=False).to(self.device)
        self.phi: nn.Module | None = None
        if recipe.sentences:
            self.phi, self.averaged_phi = (word_network(recipe).to(self.device) for _ in range(2))
            self.averaged_phi.load_state_dict(self.phi.state_dict())
            self.reader = PseudoWordReader(self.model.text.token_embedding, _tokenizer(folder, context), context)
        self.batches = Batches(self.train_rows, [data.names[row] for row in self.train_rows], recipe.families)
        self.stale = recipe.start is not None  # whether to find hard negatives before the next step
        named = [each for module in self._modules() for each in module.named_parameters()]
        self.optimiser = torch.optim.AdamW(decay_groups(named, recipe.weight_decay, "embedding"), betas=(0.9, 0.98))

    def _modules(self) -> _Modules:
        return _Modules([self.model, *(each for each in (self.teacher, self.phi) if each is not None)])

    def parts(self) -> Mapping[str, Stateful]:
        import torch

        return {
            "modules": self._modules(),
            "averaged": self.averaged,
            "averaged_phi": torch.nn.Module() if self.phi is None else self.averaged_phi,
            "optimiser": self.optimiser,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.stale = True

    def trained(self) -> Iterable[nn.Parameter]:
        return [each for module in self._modules() for each in module.parameters()]

    def mine(self) -> None:
        """Find hard negatives, after every evaluation: a checkpoint follows, so a resumed run finds the same."""
        self.stale = False
        if self.recipe.families:
            number = {name: row for row, name in enumerate(self.names)}
            tokens = self.name_tokens[[number[text] for text in self.batches.texts]]
            self.batches.mine(encode_texts(self.averaged, tokens, self.device))

    def inversion(self, text_tower: str) -> Inversion:
        """The network that makes pseudo-words, for the text encoder of the model with these weights."""
        return Inversion(word_config(self.recipe, text_tower), self.averaged_phi, "")

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        import torch

        if self.stale:
            self.mine()
        recipe = self.recipe
        rows = self.batches.draw(recipe.batch, rng)
        captions = self.data.draw(rows, rng)
        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        for module in self._modules():
            module.train()
        with torch.autocast(self.device.type, torch.bfloat16) if recipe.bf16 else nullcontext():
            if self.step < recipe.steps:
                losses = self._both_encoders(rows, captions, rng)
            else:
                losses = self._text_encoder(captions, rng)
        loss = torch.stack([getattr(recipe, name, 1.0) * value for name, value in losses.items()]).sum()
        torch.autograd.backward([loss])
        return {name: value.item() for name, value in {"loss": loss, **losses}.items()}

    def _both_encoders(
        self, rows: npt.NDArray[np.int64], captions: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        import torch

        images = augment(self.data.pixels[rows], rng, self.device, self.recipe.spoil)
        targets = torch.from_numpy(self.data.positives(rows, captions)).to(self.device)
        picture = self.model.encode_image(images, normalize=True).float()
        said = encode_tokens(self.model, self.tokens[captions].to(self.device)).float()
        losses = {"contrast": contrast(picture, said, targets, self._scale)}
        if self.teacher is not None:
            taught = torch.from_numpy(self.teacher_captions[[self.caption_row[int(each)] for each in captions]])
            taught = taught.to(self.device)
            projected = torch.nn.functional.normalize(self.teacher(taught).float(), dim=-1)
            softened = soften(targets, taught @ taught.T, self.recipe.kinship)
            losses["teacher_contrast"] = contrast(picture, projected, softened, self._scale)
        return losses

    def _text_encoder(self, captions: npt.NDArray[np.int64], rng: np.random.Generator) -> dict[str, Tensor]:
        stage, distilled = self._text_stage
        losses = {"contrast": stage.contrast(self.model, captions, self._scale)}
        if distilled is not None:
            losses["distillation"] = distilled.loss(self.model, self.recipe.words, self._scale, rng)
        if self.phi is not None:
            losses["composed"] = stage.composed(self.model, self.phi, self.reader, self._scale, rng)
        return losses

    @property
    def _scale(self) -> Tensor:
        scale: Tensor = self.model.logit_scale.exp().clamp(max=100)
        return scale

    @cached_property
    def _text_stage(self) -> tuple[TextStage, Distilled | None]:
        """The losses of the second stage. It starts with the averaged image encoder, also when resumed."""
        import torch

        self.model.visual.load_state_dict(self.averaged.visual.state_dict())
        pictures = encode_pixels(self.averaged, self.data.pixels, self.device)
        stage = TextStage(self.data, self.train_rows, pictures, self.tokens, self.recipe)
        if not self.recipe.taught:
            return stage, None
        number = {text: position for position, text in enumerate(self.data.texts)}
        names = list(dict.fromkeys(self.data.names[row] for row in self.train_rows))
        known = [name for name in names if number.get(name) in self.caption_row]
        anchors = self.teacher_captions[[self.caption_row[number[name]] for name in known]]
        means = concept_means(self.data, self.train_rows, pictures, known)
        theirs, ours = (torch.from_numpy(np.asarray(each)).to(self.device) for each in (anchors, means))
        return stage, Distilled(self.word_tokens, self.teacher_words, theirs, ours, self.recipe.softness)

    def average(self) -> None:
        since = self.step if self.step < self.recipe.steps else self.step - self.recipe.steps
        theirs, pairs = self.model.state_dict(), []
        for name, value in self.averaged.state_dict().items():
            if value.dtype.is_floating_point:
                pairs.append((value, theirs[name]))
            else:
                value.copy_(theirs[name])
        if self.phi is not None:
            pairs += zip(self.averaged_phi.parameters(), self.phi.parameters(), strict=True)
        move_average(pairs, self.recipe.average, since)

    def evaluate(self) -> dict[str, float]:
        """Image-to-text R@10 over all distinct base captions of the corpus, for a sample of each part."""
        gallery = encode_texts(self.averaged, self.name_tokens, self.device)
        row_of = {name: row for row, name in enumerate(self.names)}
        rng = np.random.default_rng(self.recipe.seed)
        parts = {"train": self.recipe.train_part, "validation": self.recipe.validation_part}
        measured: dict[str, float] = {}
        for label, part in parts.items() if self.recipe.split_field else [("train", None)]:
            rows = self.data.rows(part)
            rows = rng.choice(rows, min(1000, len(rows)), replace=False)
            if len(rows):
                scores = encode_pixels(self.averaged, self.data.pixels[rows], self.device) @ gallery.T
                right = np.array([row_of[self.data.names[row]] for row in rows])
                rank = (scores > scores[np.arange(len(rows)), right][:, None]).sum(1)
                measured |= {f"{label}_r{k}": float((rank < k).mean()) for k in (1, 10)}
        self.stale = True
        return measured


def contrast(left: Tensor, right: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross entropy with every true pair as a target, mean over rows.

    Args:
        left: (n, dim) unit rows.
        right: (n, dim) unit rows.
        positives: (n, n) bool, or float shares, with something in each row and column.
        scale: The inverse temperature.
    """
    logits = similarities(left, right, scale)
    targets = positives.float()
    forward = -(targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    backward = -(targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (forward + backward) / 2


def soften(positives: Tensor, likeness: Tensor, share: float) -> Tensor:
    """Targets that give a share of the weight to captions that a teacher finds similar.

    Args:
        positives: (n, n) bool, with at least one True in each row.
        likeness: (n, n) the teacher's cosines of the captions.
        share: 0 leaves the targets unchanged.

    Returns:
        (n, n) float32.
    """
    hard = positives.float()
    if not share:
        return hard
    near = (likeness / KINSHIP_TEMPERATURE).softmax(1)
    return (1 - share) * hard / hard.sum(1, keepdim=True) + share * (near + near.T) / 2


def _tokenizer(folder: Path, context: int) -> Any:
    from open_clip.tokenizer import HFTokenizer

    return HFTokenizer(str(folder), context_length=context)


def _tokenize(folder: Path, texts: Sequence[str], context: int) -> Tensor:
    tokens: Tensor = _tokenizer(folder, context)(list(texts))
    return tokens
