"""Training of the connectors of a photo model between two frozen models, from captioned photos.

There are two phases. *Learning*: the photos of a batch and their captions find each other (InfoNCE both ways, Radford
et al. 2021, arXiv:2103.00020), with a separate batch for each source, since telling dogs from shirts teaches nothing; a
share of the target goes to captions that the frozen text model finds similar, since a photo of a dog in snow is not
wrong for "a dog runs through snow"; and the image encoder's own classifier teaches what a few thousand captions lack
(`classes.py`). *Settling*: one side is frozen and all its vectors are known, and the other side is compared with
thousands of them (locked-side contrast: Zhai et al., "LiT", CVPR 2022, arXiv:2111.07991); sides take turns.

The two frozen models process everything once (`features.py`), so a step costs as much as two small transformers. The
result is a folder that `photo:FOLDER` loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Entry
from indexer.embed.photo.embedder import PhotoSpec, load_frozen, save_photo_model
from indexer.errors import CallError
from pipelines.train.common.captions import Captions, Templates, documents_with_both, nothing_to_train_on
from pipelines.train.common.fit import Stateful, Trainer, backward, fit
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, decay_groups, move_average
from pipelines.train.photo.classes import ClassTeacher, class_texts, named_classes
from pipelines.train.photo.evaluation import Found, measured
from pipelines.train.photo.features import photo_features, text_states
from pipelines.train.photo.recipe import PhotoRecipe

if TYPE_CHECKING:
    from torch import Tensor, nn

Rows = npt.NDArray[np.int64]
FEW = 2000
"""Photos from which the scale of features is measured."""
PART = 512
"""Items embedded together without gradients."""
STEEPEST = 100.0
"""Limit of the factor on cosines."""


def train_photo(records: Iterable[Entry], recipe: PhotoRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished model is in `folder/model`.

    Args:
        records: The corpus; it is read several times, so it cannot be an iterator.
        recipe: The settings.
        folder: The run's folder; features and a checkpoint in it are reused.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The corpus has nothing to train on, or the folder holds another run.
        MissingExtraError: The package of a frozen model is not installed.
        ModelError: A frozen model cannot be loaded.
    """
    if isinstance(records, Iterator):
        raise CallError(
            "The corpus is read several times, and an iterator can be read once.", "Give a corpus, or a list."
        )
    run = RunFolder.start(folder, recipe)
    trainer = _Trainer(records, recipe, run)
    found = fit(run, trainer, unit="photos")
    save_photo_model(folder / "model", trainer.spec, trainer.averaged)
    run.plot({
        "loss": ["loss"],
        "text to photo, R@10": ["train_text_photo_r10", "validation_text_photo_r10"],
        "photo to text, R@10": ["train_photo_text_r10", "validation_photo_text_r10"],
    })  # fmt: skip
    return found


@dataclass(frozen=True)
class _Batch:
    """Photos of one source, a caption of each, and which captions describe which photos."""

    source: str
    rows: Rows
    captions: Rows
    right: npt.NDArray[np.bool_]


class _Trainer(Trainer[PhotoRecipe]):
    """The connectors, with the frozen parts."""

    def __init__(self, records: Iterable[Entry], recipe: PhotoRecipe, run: RunFolder) -> None:
        import torch

        from indexer.embed.photo.connectors import Connectors, ConnectorsConfig

        learning = Stage(recipe.steps, recipe.peak, recipe.settle_peak)
        super().__init__(recipe, [learning, Stage(recipe.settle_steps, recipe.settle_peak)])
        self.device = torch.device(recipe.device)
        self.data = Captions(Templates(recipe.templates, recipe.values), recipe.split_field)
        self.source_of: list[str] = []
        for document in documents_with_both(records, []):
            self.data.add(document)
            self.source_of.append(str(document.fields.get(recipe.source_field, "")) if recipe.source_field else "")
        if not len(self.data):
            raise nothing_to_train_on()
        encoder, reader = load_frozen(recipe.device, torch.float32)
        training = self.data.rows(recipe.train_part if recipe.split_field else None)
        changed = np.zeros(len(self.data), np.bool_)
        changed[training] = True
        self.photos = photo_features(
            encoder,
            lambda: (each.image for each in documents_with_both(records, [])),
            [recipe.crops.get(source, 0.5) for source in self.source_of],
            changed,
            views=recipe.views, seed=recipe.seed, folder=run.path / "features",
        )  # fmt: skip
        self.sources = {source: rows for source, rows in self._by_source(training).items() if len(rows) > 1}
        if not self.sources:
            raise nothing_to_train_on()
        self.texts = text_states(reader, self.data.texts, run.path / "texts")
        if recipe.classes:
            names = class_texts()
            self.class_wordings = len(names[0])
            self.class_texts = text_states(reader, [text for own in names for text in own], run.path / "texts")
            self.teacher = ClassTeacher(encoder.model.classifier.to(self.device))
        try:
            config = ConnectorsConfig(**{"text_width": reader.width, **recipe.connectors})
        except TypeError as error:
            raise CallError(f"The recipe's connectors {dict(recipe.connectors)} cannot be made: {error}.") from error
        self.spec = PhotoSpec(encoder.digest, reader.digest, config)
        torch.manual_seed(recipe.seed)
        self.connectors = Connectors(config, recipe.dropout, recipe.hidden)
        self._measure_spread()
        self.averaged = Connectors(config)
        self.averaged.load_state_dict(self.connectors.state_dict())
        self.connectors.to(self.device).train()
        self.averaged.to(self.device).eval().requires_grad_(False)
        self.scales = torch.nn.ParameterDict({
            name: torch.nn.Parameter(torch.tensor(math.log(1 / recipe.temperature), device=self.device))
            for name in ("captions", "classes")
        })  # fmt: skip
        self.still: dict[str, tuple[int, Tensor]] = {}
        named = [*self.connectors.named_parameters(), *self.scales.named_parameters()]
        self.optimiser = torch.optim.AdamW(decay_groups(named, recipe.weight_decay), betas=(0.9, 0.98))

    def _by_source(self, rows: Rows) -> dict[str, Rows]:
        """The usable photos among those given, by source."""
        found: dict[str, list[int]] = {}
        for row in np.setdiff1d(rows, self.photos.bad):
            found.setdefault(self.source_of[row], []).append(int(row))
        return {source: np.array(own, np.int64) for source, own in found.items()}

    def _measure_spread(self) -> None:
        """Set mean and scale of the image side's input, from some photos of each source."""
        import torch

        share = max(1, FEW // len(self.sources))
        rows = np.concatenate([own[:: max(1, len(own) // share)] for own in self.sources.values()])
        late, early = self.photos.read(rows, np.zeros(len(rows), np.int64))
        image, roots, flat = self.connectors.image, late[:, 0].clamp(min=0).sqrt(), early.flatten(0, 1)
        with torch.no_grad():
            image.late_mean.copy_(roots.mean(0))
            image.late_spread.copy_(roots.std(0) + 0.05)
            image.early_mean.copy_(flat.mean(0))
            image.early_spread.copy_(flat.std(0) + 1e-3)

    def parts(self) -> Mapping[str, Stateful]:
        return {
            "connectors": self.connectors,
            "averaged": self.averaged,
            "scales": self.scales,
            "optimiser": self.optimiser,
        }

    def trained(self) -> Iterable[nn.Parameter]:
        return [*self.connectors.parameters(), *self.scales.parameters()]

    def average(self) -> None:
        pairs = zip(self.averaged.parameters(), self.connectors.parameters(), strict=True)
        move_average(pairs, self.recipe.average, self.step)

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        """One batch of each source."""
        import torch

        torch.manual_seed(int(rng.integers(2**62)))  # dropout
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            losses = self._learn(rng) if self.step < self.recipe.steps else self._settle(rng)
        total = torch.stack([self._weight(name) * loss for name, loss in losses.items()]).sum()
        value = backward(total)
        return {"loss": value} | {f"loss_{name or 'photos'}": loss.item() for name, loss in losses.items()}

    def _weight(self, name: str) -> float:
        return self.recipe.classes if name == "classes" else self.recipe.shares.get(name, 1.0)

    def _scale(self, name: str) -> Tensor:
        scale: Tensor = self.scales[name].clamp(max=math.log(STEEPEST)).exp()
        return scale

    def _learn(self, rng: np.random.Generator) -> dict[str, Tensor]:
        import torch

        losses, seen = {}, []
        for batch in self._batches(rng):
            late, early = self._photos(batch.rows, rng)
            photos, captions = self.connectors.image(late, early), self._texts(batch.captions)
            aim = self._aim(batch.right, batch.captions, batch.captions)
            losses[batch.source] = _contrast(photos, captions, aim, self._scale("captions"))
            part = self.recipe.class_batch
            seen.append((late[:part], early[:part], photos[:part]))
        if self.recipe.classes:
            late, early, photos = (torch.cat(each) for each in zip(*seen, strict=True))
            losses["classes"] = self._classes(late, early, photos, rng)
        return losses

    def _classes(self, late: Tensor, early: Tensor, photos: Tensor, rng: np.random.Generator) -> Tensor:
        """The loss of photos and synthesized features against the names of classes, with the classifier as teacher."""
        import torch

        count = int(self.recipe.made_up * len(late))
        if count:
            made, rows = self.teacher.made_up(late, count, rng)
            late, photos = torch.cat([late, made]), torch.cat([photos, self.connectors.image(made, early[rows])])
        shares = self.teacher.shares(late)
        asked = named_classes(shares, self.recipe.class_names, rng)
        texts = asked * self.class_wordings + rng.integers(0, self.class_wordings, len(asked))
        states, mask = self.class_texts.read(texts)
        names = self.connectors.text(states.to(self.device), mask.to(self.device))
        own = shares[:, torch.from_numpy(asked).to(self.device)]
        sure = own.sum(1)
        apart = -(own / (sure[:, None] + 1e-6) * (photos @ names.T * self._scale("classes")).float().log_softmax(1))
        loss: Tensor = (apart.sum(1) * sure).sum() / sure.sum()
        return loss

    def _settle(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One side against many vectors of the other, which is frozen."""
        import torch

        text_turn = (self.step - self.recipe.steps) // self.recipe.turn % 2 == 1
        losses = {}
        for batch in self._batches(rng):
            rows = self.sources[batch.source]
            if text_turn:
                far = rng.choice(rows, min(self.recipe.others, len(rows)), replace=False)
                own, still = self._texts(batch.captions), self._at_rest("photos", np.concatenate([batch.rows, far]))
                right = self.data.positives(np.concatenate([batch.rows, far]), batch.captions).T
                aim = torch.from_numpy(right.astype(np.float32)).to(self.device)
            else:
                pool = self.data.captions_of(rows)
                far = rng.choice(pool, min(self.recipe.others, len(pool)), replace=False)
                captions = np.concatenate([batch.captions, far])
                own, still = self.connectors.image(*self._photos(batch.rows, rng)), self._at_rest("texts", captions)
                aim = self._aim(self.data.positives(batch.rows, captions), batch.captions, captions)
            aim = aim / aim.sum(1, keepdim=True)
            scores = (own @ still.T * self._scale("captions")).float()
            losses[batch.source] = -(aim * scores.log_softmax(1)).sum(1).mean()
        return losses

    def _at_rest(self, kind: str, places: Rows) -> Tensor:
        """Vectors of photos or texts by the averaged weights at the start of the turn."""
        import torch

        turn = (self.step - self.recipe.steps) // self.recipe.turn
        if self.still.get(kind, (-1, None))[0] != turn:
            count = len(self.texts.means) if kind == "texts" else len(self.data)
            vectors = torch.zeros(count, self.spec.connectors.dim, device=self.device)
            if kind == "texts":
                wanted = self.data.captions_of(np.concatenate(list(self.sources.values())))
            else:
                wanted = np.concatenate(list(self.sources.values()))
            embed = self.text_vectors if kind == "texts" else self.photo_vectors
            vectors[torch.from_numpy(wanted).to(self.device)] = embed(wanted)
            self.still[kind] = (turn, vectors)
        found: Tensor = self.still[kind][1][torch.from_numpy(places).to(self.device)]
        return found

    def _batches(self, rng: np.random.Generator) -> Iterator[_Batch]:
        for source, rows in self.sources.items():
            size = min(self.recipe.batches.get(source, self.recipe.batch), len(rows))
            drawn = rng.choice(rows, size, replace=False)
            captions = self.data.draw(drawn, rng)
            yield _Batch(source, drawn, captions, self.data.positives(drawn, captions))

    def _photos(self, rows: Rows, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        late, early = self.photos.read(rows, rng.integers(0, self.photos.views, len(rows)))
        return late.to(self.device), early.to(self.device)

    def _texts(self, texts: Rows) -> Tensor:
        states, mask = self.texts.read(texts)
        found: Tensor = self.connectors.text(states.to(self.device), mask.to(self.device))
        return found

    def _aim(self, right: npt.NDArray[np.bool_], own: Rows, captions: Rows) -> Tensor:
        """The target of the contrast, (photos, captions): the right captions, and a share for similar ones."""
        import torch

        aim = torch.from_numpy(right.astype(np.float32))
        aim = aim / aim.sum(1, keepdim=True)
        if self.recipe.alike:
            means = self.texts.means
            close = torch.from_numpy(means[own] @ means[captions].T) / self.recipe.alike_temperature
            aim = (1 - self.recipe.alike) * aim + self.recipe.alike * close.softmax(1)
        return aim.to(self.device)

    def photo_vectors(self, rows: Rows) -> Tensor:
        """Vectors of unchanged photos, (n, dim), by the averaged weights."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), PART):
                own = rows[start : start + PART]
                late, early = self.photos.read(own, np.zeros(len(own), np.int64))
                found.append(self.averaged.image(late.to(self.device), early.to(self.device)))
        return torch.cat(found).clone()

    def text_vectors(self, texts: Rows) -> Tensor:
        """Vectors of captions, (n, dim), by the averaged weights."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), PART):
                states, mask = self.texts.read(texts[start : start + PART])
                found.append(self.averaged.text(states.to(self.device), mask.to(self.device)))
        return torch.cat(found).clone()

    def evaluate(self) -> dict[str, float]:
        """Recalls within each part, by source if there are several; see `evaluation.py`."""
        found: dict[str, float] = {}
        parts = {"train": self.recipe.train_part, "validation": self.recipe.validation_part}
        for label, part in parts.items() if self.recipe.split_field else [("train", None)]:
            sources = self._by_source(self.data.rows(part))
            found |= measured(label, Found(self.data, sources, self.photo_vectors, self.text_vectors), self.recipe.seed)
        return found


def _contrast(photos: Tensor, captions: Tensor, aim: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE both ways against a target: (n, dim) unit rows twice, (n, n) whose rows sum to one."""
    scores = (photos @ captions.T * scale).float()
    back = (aim / aim.sum(0, keepdim=True)).T
    forward = -(aim * scores.log_softmax(1)).sum(1).mean()
    loss: Tensor = (forward - (back * scores.T.log_softmax(1)).sum(1).mean()) / 2
    return loss
