"""Training of a bridge: the connector through which a frozen text model reads a frozen image encoder's features.

There are two phases. *Alignment*: each image is read alone, and its vector should match the text model's vector of its
caption, against those of other captions (InfoNCE with the text side locked: Zhai et al., "LiT", CVPR 2022,
arXiv:2111.07991; BLIP-2 starts its Q-Former with the same contrast, Li et al. 2023, arXiv:2301.12597). These vectors
never change, so they are computed once, and hundreds of other captions cost nothing. *Tasks*: batches mix all
directions of a search (`common/tasks.py`), including images with words, with the same contrast as `train unified`; the
projection of the text model's output is trained from here on.

Captioned images are the only data needed. The result is a folder that `bridge:FOLDER` loads.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Entry
from indexer.embed import load_embedder
from indexer.embed.bridge.connector import Connector, ConnectorConfig, build_bridge, set_projection, start_bridge
from indexer.embed.bridge.embedder import BridgeSpec, projected, require_patch_encoder, save_bridge, text_room
from indexer.embed.bridge.text_model import Pooling, TextModel
from indexer.embed.mllm.batches import by_tokens
from indexer.errors import CallError
from pipelines.train.bridge.parts import BridgeRecipe, read_texts, see, whitening
from pipelines.train.common.captions import Captions, Templates, documents_with_both, nothing_to_train_on
from pipelines.train.common.contrast import contrasted, recalls
from pipelines.train.common.differences import Differences
from pipelines.train.common.fit import Stateful, Trainer, fit
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, decay_groups
from pipelines.train.common.tasks import NONE, Reading, TaskSampler

if TYPE_CHECKING:
    from torch import Tensor, nn

Rows = npt.NDArray[np.int64]
SAMPLE = 300
"""Images of a part, and queries with both parts, that an evaluation uses."""


def train_bridge(records: Iterable[Entry], recipe: BridgeRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished bridge is in `folder/model`.

    Args:
        records: The corpus; it is read three times, so it cannot be an iterator.
        recipe: The settings.
        folder: The run's folder; a checkpoint in it is resumed.

    Returns:
        The last evaluation, and the cost of the run: `trained` (parameters), `picture_tokens`, `memory_mb` (the peak of
        the
            process or the device), `seconds` (of steps only; CPU time of the process on a CPU).

    Raises:
        CallError: The corpus has nothing to train on, or the folder holds another run.
        UnknownNameError: A connector or task that does not exist.
        ModelError: The encoder or the text model cannot be used.
        MissingExtraError: An optional package that the recipe needs is not installed.
    """
    recipe = replace(recipe, connector=Connector(recipe.connector).value)
    run = RunFolder.start(folder, recipe)
    trainer = _Trainer(records, recipe, run)
    measured = fit(run, trainer, unit="pairs")
    save_bridge(folder / "model", trainer.spec, trainer.bridge.state_dict())
    run.plot({
        "loss": ["loss"],
        "image to text, R@10": ["train_r10", "validation_r10"],
        "image and text to image, R@10": ["train_fused_r10", "validation_fused_r10"],
    })  # fmt: skip
    return measured


class _Trainer(Trainer[BridgeRecipe]):
    """The connector, with the frozen parts."""

    def __init__(self, records: Iterable[Entry], recipe: BridgeRecipe, run: RunFolder) -> None:
        import torch

        if isinstance(records, Iterator):
            raise CallError(
                "The corpus is read three times, and an iterator can be read once.", "Give a corpus, or a list."
            )
        super().__init__(recipe, [Stage(recipe.align_steps, recipe.align_peak), Stage(recipe.steps, recipe.peak)])
        self.seconds = 0.0
        self.device = torch.device(recipe.device)
        self.data = Captions(Templates(recipe.templates, recipe.values), recipe.split_field, recipe.look)
        for document in documents_with_both(records, []):
            self.data.add(document)
        if not len(self.data):
            raise nothing_to_train_on()
        encoder = require_patch_encoder(load_embedder(recipe.tower, device=recipe.device), recipe.tower)
        dtype = torch.bfloat16 if recipe.bf16 else torch.float32
        pooling = None if recipe.pooling is None else Pooling(recipe.pooling)
        self.text = TextModel.load(recipe.text, dtype, recipe.device, pooling)
        self.seen = see(encoder, lambda: (each.image for each in documents_with_both(records, [])), recipe, run.path)
        self.rows = self._usable(recipe.train_part if recipe.split_field else None)
        if not len(self.rows):
            raise nothing_to_train_on()
        self.spec = self._spec(encoder)
        self._most = text_room(self.text, self.spec.connector, recipe.max_tokens)
        captions = self.data.captions_of(self.rows)
        self.pool = captions
        self.texts = list(dict.fromkeys([*(self.data.texts[number] for number in captions), *self.data.names]))
        self._own = len({self.data.texts[number] for number in captions})  # captions of the training part come first
        self.place = {text: place for place, text in enumerate(self.texts)}
        self.read = read_texts(self.text, self.texts, self._most, run.path)
        self.bridge = self._start().to(self.device).train()
        self._pairs = {"train": self._differences(self.rows)}
        composed = any(name.startswith("fused") for name in recipe.tasks)
        self.sampler = TaskSampler(
            self.data, self.rows, self._pairs["train"] if composed else None, shares=recipe.tasks, instructions={},
            told=0.0, sentences=recipe.sentences,
        )  # fmt: skip
        groups = decay_groups(self.bridge.named_parameters(), recipe.weight_decay, "project")
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def _spec(self, encoder: Any) -> BridgeSpec:
        recipe, print_ = self.recipe, encoder.fingerprint()
        places, width = self.seen.features.shape[2:]
        connector = ConnectorConfig(
            kind=Connector(recipe.connector), feature_tokens=places, feature_width=width,
            word_width=self.text.word_width, text_width=self.text.width, project=recipe.project,
            queries=recipe.queries, qformer=dict(recipe.qformer) if recipe.connector == Connector.QFORMER else {},
        )  # fmt: skip
        return BridgeSpec(
            tower=_lasting(recipe.tower), tower_weights=print_.weights, tower_preprocessing=print_.preprocessing,
            layer=recipe.layer, text=_lasting(recipe.text), text_digest=self.text.digest, pooling=self.text.pooling,
            max_tokens=recipe.max_tokens, connector=connector,
        )  # fmt: skip

    def _start(self) -> Any:
        import torch

        torch.manual_seed(self.recipe.seed)
        bridge = build_bridge(self.spec.connector)
        start_bridge(bridge, self.text.table().cpu())
        if "project" in bridge and self.text.pooling is Pooling.LAST:
            set_projection(bridge, *whitening(self.read, self._own))
        return bridge

    def _usable(self, part: str | None) -> Rows:
        return np.setdiff1d(self.data.rows(part), self.seen.bad)

    def _differences(self, rows: Rows) -> Differences | None:
        looks = [self.data.looks[row] for row in rows] if self.data.looks else ()
        try:
            names = [self.data.names[row] for row in rows]
            return Differences(names, rows, self.seen.means(rows), self.recipe.keep, looks)
        except CallError:  # no similar captions: the sampler raises if a task needs them
            return None

    def parts(self) -> Mapping[str, Stateful]:
        return {"weights": self.bridge, "optimiser": self.optimiser}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "seconds": self.seconds}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.seconds = state["seconds"]

    def trained(self) -> Iterable[nn.Parameter]:
        parameters: Iterable[nn.Parameter] = self.bridge.parameters()
        return parameters

    def clock(self) -> float:
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()

    def costs(self) -> dict[str, float]:
        """Costs for choosing a bridge, besides its recall."""
        import torch

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        return {
            "trained": sum(each.numel() for each in self.bridge.parameters()),
            "picture_tokens": self.spec.connector.tokens,
            "memory_mb": round(peak / 1e6),
            "seconds": round(self.seconds, 1),
        }

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns its loss."""
        clock = self.clock()
        losses = super().train_step()
        self.seconds += self.clock() - clock
        return losses

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        import torch

        torch.manual_seed(int(rng.integers(2**62)))  # a Q-Former's dropout
        aligning = self.step < self.recipe.align_steps
        if "project" in self.bridge:  # the vectors that images are aligned with must not change
            self.bridge["project"].requires_grad_(not aligning)
        return {"loss": self._align(rng) if aligning else self._tasks(rng)}

    def _align(self, rng: np.random.Generator) -> float:
        recipe, count = self.recipe, min(self.recipe.batch, len(self.rows))
        rows = rng.choice(self.rows, count, replace=False)
        captions = np.concatenate([self.data.draw(rows, rng), rng.choice(self.pool, recipe.others)])
        return self._backward(
            [Reading(None, None, int(row), image=int(row)) for row in rows],
            [Reading(None, self.data.texts[number], NONE, caption=int(number)) for number in captions],
            self.data.positives(rows, captions),
        )

    def _tasks(self, rng: np.random.Generator) -> float:
        pairs = self.sampler.draw(self.recipe.batch, rng)
        return self._backward(pairs.queries, pairs.documents, pairs.right)

    def _backward(
        self, queries: Sequence[Reading], documents: Sequence[Reading], right: npt.NDArray[np.bool_]
    ) -> float:
        readings = [*queries, *documents]
        parts = self._parts(readings)

        def encode(number: int) -> Tensor:
            noise = np.random.default_rng([self.recipe.seed, self.step, number])
            return self._encode([readings[place] for place in parts[number]], noise)

        return contrasted(
            encode, parts, right, self.recipe.temperature, self.device, cached=self.recipe.cache_gradients
        )

    def _parts(self, readings: Sequence[Reading]) -> list[list[int]]:
        """Positions of items read together; the first group is all texts alone, whose vectors are precomputed."""
        silent = [place for place, each in enumerate(readings) if each.image == NONE]
        shown = [place for place, each in enumerate(readings) if each.image != NONE]
        lengths = [self.text.specials + self.spec.connector.tokens + len(self._ids(readings[place])) for place in shown]
        parts = [[shown[place] for place in part] for part in by_tokens(lengths, self.recipe.tokens)]
        return [silent, *parts] if silent else parts

    def _ids(self, reading: Reading) -> list[int]:
        return [] if reading.text is None else self.text.ids(reading.text, self._most)

    def _encode(self, readings: Sequence[Reading], noise: np.random.Generator | None) -> Tensor:
        """Unit vectors (n, dim) float32, with gradients, of items that all have an image or all have none."""
        import torch

        if readings[0].image == NONE:
            places = [self.place[str(each.text)] for each in readings]
            read = torch.from_numpy(self.read[places]).to(self.device)
        else:
            rows = np.array([each.image for each in readings])
            views = (
                np.zeros(len(rows), np.int64)
                if noise is None
                else noise.integers(self.seen.features.shape[0], size=len(rows))
            )
            features = torch.from_numpy(self.seen.features[views, rows].astype(np.float32)).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16) if self.recipe.bf16 else nullcontext():
                words = self.bridge["connector"](features)
            read = self.text.read([self._ids(each) for each in readings], words, [True] * len(readings)).float()
        return torch.nn.functional.normalize(projected(self.bridge, read), dim=-1)

    def _vectors(self, readings: Sequence[Reading]) -> npt.NDArray[np.float32]:
        """Vectors of the finished bridge, without augmentation or gradients."""
        import torch

        found = np.empty((len(readings), self.text.width), np.float32)
        self.bridge.eval()
        with torch.inference_mode():
            for part in self._parts(readings):
                found[part] = self._encode([readings[place] for place in part], None).cpu().numpy()
        self.bridge.train()
        return found

    def evaluate(self) -> dict[str, float]:
        """Costs, and the results of `recalls`."""
        vectors = self._vectors
        measured = recalls(
            self.data, self.recipe, SAMPLE, usable=self._usable, alike=self._alike, asking=vectors, found=vectors
        )
        return measured | self.costs()

    def _alike(self, label: str, rows: Rows) -> Differences | None:
        if label not in self._pairs:
            self._pairs[label] = self._differences(rows)
        return self._pairs[label]


def _lasting(name: str) -> str:
    """A model's name that is valid from another working folder."""
    family, colon, rest = name.partition(":") if ":" in name else ("", "", name)
    folder, mark, options = rest.partition("?")
    if family in ("bundled", "package") or not Path(folder).exists():
        return name  # not a path, whatever is in the working folder
    return f"{family}{colon}{Path(folder).resolve()}{mark}{options}"
