"""Train an open_clip model from scratch on a captioned corpus, with or without a text teacher.

The first stage trains both towers, by losses that are each a mean over the batch:

* contrast: images against captions, both ways (Radford et al. 2021, arXiv:2103.00020), where every caption that is
  true of an image counts as its positive (UniCL's targets: Yang et al. 2022, arXiv:2204.03610);
* with a teacher, contrast of the images against a linear image of the teacher's caption vectors, which ties the
  picture space to what the teacher knows.

The second stage, with a teacher only, goes on with the text tower alone, against the finished picture vectors: the
same contrast, and distillation (Hinton et al. 2015, arXiv:1503.02531): any word's similarities to the concepts' mean
pictures follow the teacher's similarities of the word to the concepts' names. So words that no caption holds land among
the pictures they mean. It needs no images and is quick.

Only the student is kept. The result is an open_clip folder: `open_clip.create_model("local-dir:FOLDER")` loads it.

What this module does not know: collections, queries, how a corpus is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Record
from indexer.types import Rejected
from indexer.vectors import unit_rows
from pipelines.train.augment import augment
from pipelines.train.captions import CaptionedImages, Templates
from pipelines.train.clip_model import ClipRecipe, build, encode_pixels, encode_texts, encode_tokens, export
from pipelines.train.run import RunFolder, cosine_schedule, training_progress
from pipelines.train.teacher import MINILM_DIM, teacher_vectors, teacher_words
from pipelines.train.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from torch import Tensor, nn


def train_clip(records: Iterable[Record | Rejected], recipe: ClipRecipe, folder: Path) -> dict[str, float]:
    """Train, or go on training, in `folder`; the finished model lies in `folder/model`.

    Args:
        records: The corpus: an iterable of `Record` and `Rejected`.
        recipe: What to train.
        folder: The run's folder; checkpoints in it are resumed.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The corpus has no pair to train on, or the folder holds another run.
        MissingExtraError: An optional package that the recipe needs is missing.
    """
    run = RunFolder.start(folder, recipe)
    data = CaptionedImages(
        records, recipe.vision["image_size"], Templates(recipe.templates, recipe.values), recipe.split_field
    )
    trainer = _Trainer(data, recipe, run)
    state = run.load()
    if state is not None:
        trainer.load_state(state)
    note: dict[str, str] = {}
    measured: dict[str, float] = {}
    clock, images = time.perf_counter(), 0
    steps = recipe.steps + recipe.text_steps
    for step in training_progress(trainer.step, steps, note):
        losses = trainer.advance()
        images += recipe.batch
        note["loss"] = f"{losses['loss']:.3f}"
        note["images/s"] = f"{images / (time.perf_counter() - clock):.0f}"
        if (step + 1) % recipe.evaluate_every == 0 or step + 1 in (recipe.steps, steps):
            rate = images / (time.perf_counter() - clock)
            measured = trainer.evaluate()
            run.log(step + 1, images_per_second=rate, **losses, **measured)
            run.save(trainer.state())
            clock, images = time.perf_counter(), 0
    export(trainer.averaged, recipe, folder / "tokenizer", folder / "model")
    run.plot({
        "loss": ["loss", "contrast", "teacher_contrast", "distillation"],
        "image to text, R@10": ["train_r10", "validation_r10"],
        "images per second": ["images_per_second"],
    })  # fmt: skip
    return measured or trainer.evaluate()


class _Trainer:
    """The state of a run and one step of it."""

    def __init__(self, data: CaptionedImages, recipe: ClipRecipe, run: RunFolder) -> None:
        import torch

        self.data, self.recipe, self.step = data, recipe, 0
        self.device = torch.device(recipe.device)
        self.train_rows = data.rows(recipe.train_part if recipe.split_field else None)
        captions = data.captions_of(self.train_rows)
        words = teacher_words() if recipe.text_steps else []
        tokenizer_folder = run.path / "tokenizer"
        if not (tokenizer_folder / "tokenizer_config.json").exists():
            train_tokenizer(
                [data.texts[number] for number in captions] + words,
                recipe.text["vocab_size"], recipe.text["context_length"], tokenizer_folder,
            )  # fmt: skip
        self.tokens = _tokenize(tokenizer_folder, data.texts, recipe.text["context_length"])
        self.names = sorted(set(data.names))
        self.name_tokens = _tokenize(tokenizer_folder, self.names, recipe.text["context_length"])
        torch.manual_seed(recipe.seed)
        self.model = build(recipe).to(self.device).to(memory_format=torch.channels_last)
        self.averaged = build(recipe).to(self.device)
        self.averaged.load_state_dict(self.model.state_dict())
        self.teacher: nn.Module | None = None
        if recipe.text_steps:
            self.word_tokens = _tokenize(tokenizer_folder, words, recipe.text["context_length"])
            vectors = teacher_vectors([data.texts[number] for number in captions] + words, run.path / "teacher")
            self.caption_row = {int(number): row for row, number in enumerate(captions)}
            self.teacher_captions = vectors[: len(captions)]
            self.teacher_words = vectors[len(captions) :]
            self.teacher = torch.nn.Linear(MINILM_DIM, recipe.dim, bias=False).to(self.device)
        self.optimiser = torch.optim.AdamW(_groups(self._modules(), recipe.weight_decay), betas=(0.9, 0.98))

    def _modules(self) -> list[nn.Module]:
        return [self.model] + ([self.teacher] if self.teacher is not None else [])

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "modules": [module.state_dict() for module in self._modules()],
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for module, values in zip(self._modules(), state["modules"], strict=True):
            module.load_state_dict(values)
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns its losses."""
        import torch

        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        rows = rng.choice(self.train_rows, recipe.batch, replace=len(self.train_rows) < recipe.batch)
        captions = self.data.draw(rows, rng)
        targets = torch.from_numpy(self.data.positives(rows, captions)).to(self.device)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16) if recipe.bf16 else nullcontext():
            if self.step < recipe.steps:
                losses = self._both_towers(rows, captions, targets, rng)
                rate = cosine_schedule(self.step, recipe.steps, recipe.warmup, recipe.peak)
            else:
                losses = self._text_tower(rows, captions, targets, rng)
                rate = cosine_schedule(self.step - recipe.steps, recipe.text_steps, recipe.warmup, recipe.text_peak)
        loss = torch.stack([getattr(recipe, name, 1.0) * value for name, value in losses.items()]).sum()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_([p for m in self._modules() for p in m.parameters()], 1.0)
        self.optimiser.step()
        self._average()
        self.step += 1
        return {name: value.item() for name, value in {"loss": loss, **losses}.items()}

    def _both_towers(
        self,
        rows: npt.NDArray[np.int64],
        captions: npt.NDArray[np.int64],
        targets: Tensor,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        import torch

        images = augment(self.data.pixels[rows], rng, self.device)
        picture = self.model.encode_image(images, normalize=True).float()
        said = encode_tokens(self.model, self.tokens[captions].to(self.device)).float()
        scale = self.model.logit_scale.exp().clamp(max=100)
        losses = {"contrast": contrast(picture, said, targets, scale)}
        if self.teacher is not None:
            taught = torch.from_numpy(self.teacher_captions[[self.caption_row[int(each)] for each in captions]])
            projected = torch.nn.functional.normalize(self.teacher(taught.to(self.device)).float(), dim=-1)
            losses["teacher_contrast"] = contrast(picture, projected, targets, scale)
        return losses

    def _text_tower(
        self,
        rows: npt.NDArray[np.int64],
        captions: npt.NDArray[np.int64],
        targets: Tensor,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        import torch

        pictures, means, anchors = self._finished_pictures
        words = rng.choice(len(self.word_tokens), min(self.recipe.words, len(self.word_tokens)), replace=False)
        said = encode_tokens(self.model, self.tokens[captions].to(self.device)).float()
        # Words are shorter than captions: on their own they are not padded to a caption's length.
        spoken = encode_tokens(self.model, self.word_tokens[words].to(self.device)).float()
        scale = self.model.logit_scale.exp().clamp(max=100)
        taught = torch.from_numpy(self.teacher_words[words]).to(self.device) @ anchors.T / self.recipe.softness
        learnt = scale * spoken @ means.T
        return {
            "contrast": contrast(pictures[torch.from_numpy(rows)], said, targets, scale),
            "distillation": -(taught.softmax(1) * learnt.log_softmax(1)).sum(1).mean(),
        }

    @cached_property
    def _finished_pictures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every record's picture vector; every trained concept's mean picture and the teacher's vector of its name.

        The second stage starts here, also when it is resumed: the averaged picture tower is what it goes on with.
        """
        import torch

        self.model.visual.load_state_dict(self.averaged.visual.state_dict())
        pictures = encode_pixels(self.averaged, self.data.pixels, self.device)
        number = {text: position for position, text in enumerate(self.data.texts)}
        inside: dict[str, list[int]] = {}
        for row in self.train_rows:
            inside.setdefault(self.data.names[row], []).append(int(row))
        known = [name for name in inside if number.get(name) in self.caption_row]
        means = unit_rows(np.stack([pictures[inside[name]].mean(0) for name in known]))
        anchors = self.teacher_captions[[self.caption_row[number[name]] for name in known]]
        return tuple(torch.from_numpy(np.asarray(each)).to(self.device) for each in (pictures, means, anchors))  # type: ignore[return-value]

    def _average(self) -> None:
        import torch

        # Early on the average would be dominated by the random start: let it follow quickly at first.
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            theirs = self.model.state_dict()
            for name, value in self.averaged.state_dict().items():
                if value.dtype.is_floating_point:
                    value.lerp_(theirs[name], 1 - decay)
                else:
                    value.copy_(theirs[name])

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
        return measured


def contrast(left: Tensor, right: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross entropy with every true pair as a target, mean over rows.

    Args:
        left: (n, dim) unit rows.
        right: (n, dim) unit rows.
        positives: (n, n) bool, with at least one True in each row and column.
        scale: The inverse temperature.
    """
    logits = scale * left @ right.T
    targets = positives.float()
    forward = -(targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    backward = -(targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (forward + backward) / 2


def _tokenize(folder: Path, texts: Sequence[str], context: int) -> Tensor:
    from open_clip.tokenizer import HFTokenizer

    tokens: Tensor = HFTokenizer(str(folder), context_length=context)(list(texts))
    return tokens


def _groups(modules: list[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and "embedding" not in name]
    rest = [p for name, p in named if not (p.ndim >= 2 and "embedding" not in name)]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
