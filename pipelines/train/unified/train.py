"""Training of one model that embeds texts, images and both in one space, like GME, from captioned images alone.

The loss is InfoNCE at a fixed temperature, from query to document and back, over batches that mix all directions of a
search (`common/tasks.py`); queries have instructions, documents do not. There are two stages, as in GME (Zhang et al.,
arXiv:2412.16855, after ANCE): first with the batch's own negatives, then also with wrong answers of the first stage's
model. The model is new, or a checkpoint, trained fully or with a LoRA. With `cache_gradients` the batch may exceed the
memory.

GME used: LoRA of rank 8, learning rate 1e-4, temperature 0.03, 8 hard negatives, batches of 128 with images.

The result is a folder that `mllm:FOLDER` loads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.images import decode_image
from indexer.corpus.records import Entry
from indexer.embed.mllm.batches import by_tokens
from indexer.embed.mllm.embedder import image_tokens, last_hidden, pad_token
from indexer.embed.mllm.prompt import Prompt, collate
from indexer.errors import CallError, ItemError
from indexer.types import Item, Role
from pipelines.train.common.augment import augment
from pipelines.train.common.captions import Captions, Templates, documents_with_both, nothing_to_train_on
from pipelines.train.common.contrast import contrasted, recalls
from pipelines.train.common.differences import Differences
from pipelines.train.common.fit import Stateful, Trainer, fit
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, decay_groups, move_average
from pipelines.train.common.tasks import NONE, Reading, TaskSampler
from pipelines.train.unified.model import Attention, UnifiedRecipe, export, normalised, start_model, thumbnails
from pipelines.train.unified.synthesised import SynthesisedRecords

if TYPE_CHECKING:
    from torch import Tensor, nn

Pixels = npt.NDArray[np.uint8]
SAMPLE = 1000
"""Records of a part, and queries with both parts, that an evaluation uses."""


def train_unified(records: Iterable[Entry], recipe: UnifiedRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished model is in `folder/model`.

    Args:
        records: The corpus.
        recipe: The settings.
        folder: The run's folder; a checkpoint in it is resumed.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The corpus has nothing to train on, or the folder holds another run.
        UnknownNameError: A task that does not exist.
        ModelError: The checkpoint to start from cannot be used.
        MissingExtraError: An optional package that the recipe needs is not installed.
    """
    run = RunFolder.start(folder, recipe)
    trainer = _Trainer(records, recipe, run)
    measured = fit(run, trainer, unit="pairs")
    with trainer.averaged():
        export(trainer.unified, recipe, folder / "model")
    run.plot({
        "loss": ["loss"],
        "image to text, R@10": ["train_r10", "validation_r10"],
        "image and text to image, R@10": ["train_fused_r10", "validation_fused_r10"],
        "pairs per second": ["pairs_per_second"],
    })  # fmt: skip
    return measured


class _Tensors:
    """Tensors by name, which are written in place."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def state_dict(self) -> dict[str, Tensor]:
        return {name: each.detach() for name, each in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, each in self._tensors.items():
                each.copy_(state[name])


class _Trainer(Trainer[UnifiedRecipe]):
    """The model, its moving average, and the wrong answers found last."""

    def __init__(self, records: Iterable[Entry], recipe: UnifiedRecipe, run: RunFolder) -> None:
        import torch

        super().__init__(recipe, [Stage(recipe.steps, recipe.peak), Stage(recipe.hard_steps, recipe.hard_peak)])
        attention = Attention(recipe.attention)
        self.device = torch.device(recipe.device)
        self.data = Captions(Templates(recipe.templates, recipe.values), recipe.split_field, recipe.look)
        documents = list(documents_with_both(records, []))
        for document in documents:
            self.data.add(document)
        self.rows = self.data.rows(recipe.train_part if recipe.split_field else None)
        said = [recipe.query_instruction, recipe.fused_instruction or "", recipe.document_instruction]
        said += [each for own in recipe.instructions.values() for each in own]
        said += [each.replace("{text}", "") for each in recipe.sentences]
        self._require_rows()
        captions = [self.data.texts[number] for number in self.data.captions_of(self.rows)]
        synthesised = SynthesisedRecords.read(recipe.synthesised)
        self.unified = start_model(recipe, run.path / "reading", [*captions, *said, *synthesised.texts()])
        self.pictures = self._read(documents)
        self._require_rows()
        rows = {documents[row].id: int(row) for row in self.rows}
        self.extra = synthesised.pairs(rows, self.pictures, self.unified.shaper, recipe.synthesised_share)
        self.sampler = TaskSampler(
            self.data,
            self.rows,
            self._differences(self.rows) if any(name.startswith("fused") for name in recipe.tasks) else None,
            shares=recipe.tasks,
            instructions=recipe.instructions,
            told=recipe.told,
            sentences=recipe.sentences,
            looks=recipe.looks,
        )
        self.unified.model.set_attn_implementation(attention.value)
        self.unified.model.to(self.device).train()
        self.weights = {name: each for name, each in self.unified.model.named_parameters() if each.requires_grad}
        self.mean = {name: each.detach().clone() for name, each in self.weights.items()}
        self.mined: Tensor | None = None
        self._asked: dict[str, Differences | None] = {}
        groups = decay_groups(self.weights.items(), recipe.weight_decay, "embed_tokens")
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def _require_rows(self) -> None:
        if not len(self.rows):
            raise nothing_to_train_on()

    def _read(self, documents: Sequence[Any]) -> list[Pixels]:
        """Images at the model's size; records with an unusable image are excluded from training."""
        pictures, bad = [], []
        for row, document in enumerate(documents):
            try:
                pictures.append(self.unified.shaper(decode_image(document.image)))
            except ItemError:
                bad.append(row)
                pictures.append(np.zeros((1, 1, 3), np.uint8))  # keeps the positions of the others
        self.rows = np.setdiff1d(self.rows, bad)
        self._unusable = bad
        return pictures

    def _differences(self, rows: npt.NDArray[np.int64]) -> Differences:
        recipe, pictures = self.recipe, [self.pictures[row] for row in rows]
        if recipe.likeness is None:
            features = thumbnails(pictures)
        else:
            from PIL import Image

            from indexer.embed import load_embedder

            embedder = load_embedder(recipe.likeness, device=recipe.device)
            features = embedder.encode_document([Item(image=Image.fromarray(each)) for each in pictures])
        looks = [self.data.looks[row] for row in rows] if self.data.looks else ()
        return Differences([self.data.names[row] for row in rows], rows, features, recipe.keep, looks)

    def parts(self) -> Mapping[str, Stateful]:
        return {
            "weights": _Tensors(self.weights),
            "averaged": _Tensors(self.mean),
            "optimiser": self.optimiser,
        }

    def state(self) -> dict[str, Any]:
        return {**super().state(), "mined": self.mined}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.mined = state["mined"]

    def trained(self) -> Iterable[nn.Parameter]:
        return self.weights.values()

    def average(self) -> None:
        pairs = ((self.mean[name], each) for name, each in self.weights.items())
        move_average(pairs, self.recipe.average, self.step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the moving average in place of the weights."""
        import torch

        own = {name: each.detach().clone() for name, each in self.weights.items()}
        with torch.no_grad():
            for name, each in self.weights.items():
                each.copy_(self.mean[name])
        self.unified.model.eval()
        try:
            yield
        finally:
            self.unified.model.train()
            with torch.no_grad():
                for name, each in self.weights.items():
                    each.copy_(own[name])

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        import torch

        recipe = self.recipe
        torch.manual_seed(int(rng.integers(2**62)))  # a LoRA's dropout
        mined = None
        if self.step >= recipe.steps:
            if self.mined is None:
                self.mined = torch.from_numpy(self._mine())
            mined = self.mined.numpy()
        extra = self.extra.count(recipe.batch)
        pairs = self.sampler.draw(recipe.batch - extra, rng, mined, recipe.hard)
        pairs = self.sampler.joined(pairs, *self.extra.draw(extra, rng)) if extra else pairs
        readings = [*pairs.queries, *pairs.documents]
        prompts = self._prompts(readings, len(pairs.queries))
        parts = by_tokens([len(each) for each in prompts], recipe.tokens)

        def encode(number: int) -> Tensor:
            part, noise = parts[number], np.random.default_rng([recipe.seed, self.step, number])
            return self._encode([readings[each] for each in part], [prompts[each] for each in part], noise)

        value = contrasted(encode, parts, pairs.right, recipe.temperature, self.device, cached=recipe.cache_gradients)
        return {"loss": value}

    def _prompts(self, readings: Sequence[Reading], queries: int) -> list[Prompt]:
        """The prompts of queries, followed by those of documents."""
        unified = self.unified
        prompts = []
        for place, each in enumerate(readings):
            role = Role.QUERY if place < queries else Role.DOCUMENT
            grids = [] if each.image == NONE else [unified.shaper.grid(self.pictures[each.image])]
            told = unified.spec.instruction(role, each.modality, each.instruction)
            prompts.append(unified.writer.write(told, each.text, grids))
        return prompts

    def _encode(
        self, readings: Sequence[Reading], prompts: Sequence[Prompt], noise: np.random.Generator | None
    ) -> Tensor:
        """Unit vectors (n, dim) float32, with gradients; images are augmented if there is noise."""
        import torch

        unified = self.unified
        rows = [each.image for each in readings if each.image != NONE]
        batch = collate(
            prompts, pad_token(self._config), image_tokens(self._config), unified.shaper.merge, unified.spec
        )
        with torch.autocast(self.device.type, torch.bfloat16) if self.recipe.bf16 else nullcontext():
            patches = self._patches(rows, noise) if rows else None
            hidden = last_hidden(unified.model, batch, patches, self.device)
        return torch.nn.functional.normalize(hidden.float(), dim=-1)

    def _patches(self, rows: Sequence[int], noise: np.random.Generator | None) -> Tensor:
        import torch

        shaper = self.unified.shaper
        pictures = [self.pictures[row] for row in rows]
        if noise is None or not self.recipe.augment:
            return shaper.patches(pictures, self.device)
        if len({each.shape for each in pictures}) == 1:
            return shaper.cut(normalised(augment(np.stack(pictures), noise, self.device), shaper))
        return torch.cat([shaper.cut(normalised(augment(each[None], noise, self.device), shaper)) for each in pictures])

    @functools.cached_property
    def _config(self) -> Any:
        return self.unified.model.config

    def _vectors(self, readings: Sequence[Reading], role: Role) -> npt.NDArray[np.float32]:
        """Vectors by the current weights, without augmentation or gradients."""
        import torch

        prompts = self._prompts(readings, len(readings) if role is Role.QUERY else 0)
        found = np.empty((len(readings), self._config.text_config.hidden_size), np.float32)
        with torch.inference_mode():
            for part in by_tokens([len(each) for each in prompts], self.recipe.tokens):
                own = self._encode([readings[each] for each in part], [prompts[each] for each in part], None)
                found[part] = own.cpu().numpy()
        return found

    def _mine(self) -> npt.NDArray[np.int64]:
        """For each record, wrong records whose images its text finds: (records, k) int64."""
        depth = self.recipe.mine_depth
        mined = np.full((len(self.data), depth), NONE, np.int64)
        names = list(dict.fromkeys(self.data.names[row] for row in self.rows))
        with self.averaged():
            asked = self._vectors([Reading(None, name, 0) for name in names], Role.QUERY)
            pictures = self._vectors(
                [Reading(None, None, int(row), image=int(row)) for row in self.rows], Role.DOCUMENT
            )
        own: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            own.setdefault(self.data.names[row], []).append(place)
        for name, query in zip(names, asked, strict=True):
            scores = pictures @ query
            scores[own[name]] = -np.inf
            best = np.argsort(-scores, kind="stable")[: min(depth, len(scores) - len(own[name]))]
            mined[self.rows[own[name]], : len(best)] = self.rows[best]
        return mined

    def evaluate(self) -> dict[str, float]:
        """The results of `recalls` for the moving average."""
        with self.averaged():
            return recalls(
                self.data, self.recipe, SAMPLE,
                usable=lambda part: np.setdiff1d(self.data.rows(part), self._unusable),
                alike=self._alike,
                asking=lambda readings: self._vectors(readings, Role.QUERY),
                found=lambda readings: self._vectors(readings, Role.DOCUMENT),
            )  # fmt: skip

    def _alike(self, label: str, rows: npt.NDArray[np.int64]) -> Differences | None:
        if not any(name.startswith("fused") for name in self.recipe.tasks):
            return None
        if label not in self._asked:
            self._asked[label] = self._differences_or_none(rows)
        return self._asked[label]

    def _differences_or_none(self, rows: npt.NDArray[np.int64]) -> Differences | None:
        try:
            return self._differences(rows)
        except CallError:  # a small part may have no similar captions
            return None
