"""The synthesis job: passages in, training records of an image, a question and its answer out.

After GME (Zhang et al., arXiv:2412.16855, section 3.3): a language model writes a question that a passage answers; the
question must find its passage; the model replaces the thing that the question names by a pointing word; an image of the
thing is retrieved or generated, and must be similar to it. GME searches the web or generates with FLUX; here images
come from the corpus or the generator.

    FOLDER/asked.jsonl       the ledger of questions and answers, from which an interrupted run continues
    FOLDER/passages/ pictures/   collections
    FOLDER/drawn/            generated images
    FOLDER/records.jsonl     the records, for `train unified --synthesised`
    FOLDER/dropped.jsonl     what was dropped, and why
    FOLDER/summary.json      counts, and everything that the run depends on
    FOLDER/sheet.html        samples of both, for inspection

The last four are written at the end, each atomically. Everything but the model's answers is recomputed from the ledger
by each run, so a run that was killed at any point ends with the same files as an uninterrupted one.

This module does not know how a model is called, or how records are trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.corpus.records import Corpus
from indexer.errors import CallError
from indexer.files.atomic import atomic_write, sweep_temporary
from indexer.types import JsonValue
from pipelines.synthesis.illustrate import Illustrator, Picture
from pipelines.synthesis.ledger import Answer, Ledger
from pipelines.synthesis.passages import Part, Passage, chosen, read_passages
from pipelines.synthesis.questions import BATCH, Asked, Pointing, Prompts, ask
from pipelines.synthesis.recipe import Drop, Pictures, SynthesisRecipe
from pipelines.train.common.run import require_folder
from pipelines.train.unified.synthesised import Finds, SynthesisedRecord
from retrieval.providers.cache import digest_of
from retrieval.providers.language import Chat

if TYPE_CHECKING:
    from retrieval.providers.pseudo_target import PseudoTargetProvider

RECORDS, DROPPED, SUMMARY, SHEET = "records.jsonl", "dropped.jsonl", "summary.json", "sheet.html"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a passage, as far as it came.

    Attributes:
        passage: The passage.
        asked: The question.
        rank: The rank at which the question found the passage.
        pointing: The question with a pointing word in place of the thing.
        picture: The image of the thing.
        record: The record made, or None.
        drop: Why none was made, or None.
        said: The model's last answer, or why there was none.
    """

    passage: Passage
    asked: Asked | None = None
    rank: int | None = None
    pointing: Pointing | None = None
    picture: Picture | None = None
    record: SynthesisedRecord | None = None
    drop: Drop | None = None
    said: str = ""

    def dropped(self) -> dict[str, JsonValue]:
        """A line of the file of dropped passages."""
        asked, pointing, picture = self.asked, self.pointing, self.picture
        return {
            "reason": str(self.drop),
            "document": self.passage.document,
            "passage": self.passage.text,
            "question": asked.query if asked else None,
            "reply": asked.reply if asked else None,
            "said": self.said,
            "rank": self.rank,
            "thing": pointing.thing if pointing else None,
            "rewritten": pointing.query if pointing else None,
            "picture": picture.document if picture else None,
            "similarity": picture.similarity if picture else None,
            "corrected": picture.corrected if picture else None,
        }


@dataclass(frozen=True)
class Synthesis:
    """The results of a run.

    Attributes:
        outcomes: One for each passage asked about.
        passages: The number of passages in the part of the corpus.
        skipped: Counts of documents without a passage, by reason.
        about: Everything the run depends on: models, prompts, recipe.
    """

    outcomes: Sequence[Outcome]
    passages: int
    skipped: Mapping[str, int]
    about: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def kept(self) -> list[SynthesisedRecord]:
        """The records."""
        return [each.record for each in self.outcomes if each.record is not None]

    @property
    def dropped(self) -> dict[str, int]:
        """How many passages were dropped, by reason, in the order of the checks."""
        counts = Counter(each.drop for each in self.outcomes if each.drop is not None)
        return {reason.value: counts[reason] for reason in Drop if counts[reason]}

    def to_json(self) -> dict[str, Any]:
        """The content of the summary file."""
        return {
            "passages": self.passages,
            "asked": len(self.outcomes),
            "kept": len(self.kept),
            "dropped": self.dropped,
            "skipped": dict(self.skipped),
            **self.about,
        }


Told = Callable[[int, int, Mapping[str, int]], None]
"""Called with the number of passages done, their total, and the dropped ones by reason."""


def synthesize(
    corpus: Corpus,
    chat: Chat,
    recipe: SynthesisRecipe,
    folder: Path,
    *,
    pseudo_targets: PseudoTargetProvider | None = None,
    on_progress: Told = lambda *_: None,
) -> Synthesis:
    """Make records in `folder`, or continue an interrupted run.

    Args:
        corpus: Documents with texts, and with images.
        chat: The model that writes.
        recipe: The settings.
        folder: The run's folder; see the module.
        pseudo_targets: Generates images, if the recipe asks for it.
        on_progress: Called after each batch.

    Raises:
        CallError: The corpus has no passage or no image, a provider of pseudo-targets is missing or not needed, or the
            folder is a file.
        ModelError: A model or a prompt cannot be loaded.
        WriterAwayError: The language model cannot be reached; a second run continues.
        LockedError: Another run writes to the folder.
        StoreError: The folder cannot be used.
    """
    from indexer.files.lock import WriterLock

    if (pseudo_targets is None) is (recipe.pictures is Pictures.DRAWN):
        raise CallError(
            "A provider of pseudo-targets is needed if images are generated, and only then.",
            "Pass one with Pictures.DRAWN, and none with Pictures.FOUND.",
        )
    require_folder(folder)
    with WriterLock(folder / "lock"):
        sweep_temporary(folder)
        ledger, prompts = Ledger(folder / "asked.jsonl"), Prompts.read(recipe.prompt_folder)
        part = Part(corpus, recipe.split_field, recipe.part)
        skipped: Counter[str] = Counter()
        passages = read_passages(part, recipe.passage, skipped)
        illustrator = Illustrator(part, passages, recipe, folder, pseudo_targets)
        try:
            job = _Job(chat, ledger, prompts, illustrator, recipe, pseudo_targets)
            outcomes = job.run(chosen(passages, recipe), on_progress)
        finally:
            illustrator.close()
        found = Synthesis(outcomes, len(passages), dict(sorted(skipped.items())), job.about)
        _write(found, folder)
        return found


class _Job:
    """One run over selected passages."""

    def __init__(
        self,
        chat: Chat,
        ledger: Ledger,
        prompts: Prompts,
        illustrator: Illustrator,
        recipe: SynthesisRecipe,
        pseudo_targets: PseudoTargetProvider | None,
    ) -> None:
        self._chat, self._ledger, self._prompts, self._recipe = chat, ledger, prompts, recipe
        self._illustrator = illustrator
        self._seen: set[tuple[str, str]] = set()
        drawing = None if pseudo_targets is None else pseudo_targets.generator(illustrator.embedder).name
        self.about: dict[str, JsonValue] = {
            "writer": {"name": chat.name, **chat.chat_identity()},
            "prompts": prompts.digest,
            "model": _identified(illustrator.embedder),
            "retriever": _identified(illustrator.reader),
            "generator": drawing,
            "recipe": _plain(recipe),
        }
        self._made: dict[str, JsonValue] = {
            "writer": chat.name,
            "writer_digest": digest_of(dict(chat.chat_identity())),
            "prompts": prompts.digest,
            "model": illustrator.embedder.name,
            "retriever": illustrator.reader.name,
            "generator": drawing,
            "seed": recipe.seed,
        }

    def run(self, passages: Sequence[Passage], on_progress: Told) -> list[Outcome]:
        """The outcome of each passage."""
        outcomes: list[Outcome] = []
        drops: Counter[str] = Counter()
        for start in range(0, len(passages), BATCH):
            batch = [Outcome(passage) for passage in passages[start : start + BATCH]]
            for step in (self._question, self._find, self._point, self._illustrate):
                going = [place for place, each in enumerate(batch) if each.drop is None]
                for place, outcome in zip(going, step([batch[place] for place in going]), strict=True):
                    batch[place] = outcome
            outcomes += [self._recorded(each) for each in batch]
            drops.update(str(each.drop) for each in outcomes[start:] if each.drop is not None)
            on_progress(len(outcomes), len(passages), drops)
        return outcomes

    def _question(self, batch: Sequence[Outcome]) -> list[Outcome]:
        answers = ask(
            self._chat, self._ledger, [self._prompts.about(each.passage.text) for each in batch], self._recipe.tokens
        )
        found = []
        for each, answer in zip(batch, answers, strict=True):
            own = self._prompts.asked(answer)
            told = replace(each, said=_said(answer))
            found.append(replace(told, drop=own) if isinstance(own, Drop) else replace(told, asked=own))
        return found

    def _find(self, batch: Sequence[Outcome]) -> list[Outcome]:
        ranks = self._illustrator.ranks([_asked(each).query for each in batch], [each.passage for each in batch])
        return [
            replace(each, rank=rank, drop=None if rank else Drop.PASSAGE_NOT_FOUND)
            for each, rank in zip(batch, ranks, strict=True)
        ]

    def _point(self, batch: Sequence[Outcome]) -> list[Outcome]:
        questions = [self._prompts.again(_asked(each)) for each in batch]
        answers = ask(self._chat, self._ledger, questions, self._recipe.tokens)
        found = []
        for each, answer in zip(batch, answers, strict=True):
            own = self._prompts.pointing(answer, _asked(each))
            told = replace(each, said=_said(answer))
            found.append(replace(told, drop=own) if isinstance(own, Drop) else replace(told, pointing=own))
        return found

    def _illustrate(self, batch: Sequence[Outcome]) -> list[Outcome]:
        things = [each.pointing.thing for each in batch if each.pointing is not None]
        pictures = self._illustrator.pictures(things)
        return [replace(each, picture=own, drop=self._unfit(own)) for each, own in zip(batch, pictures, strict=True)]

    def _unfit(self, picture: Picture | None) -> Drop | None:
        if picture is None:
            return Drop.NO_PICTURE
        if picture.similarity < self._recipe.least:
            return Drop.UNLIKE
        least = self._recipe.least_corrected
        return Drop.GENERIC if least is not None and picture.corrected < least else None

    def _recorded(self, outcome: Outcome) -> Outcome:
        """The outcome with its record, if it came so far and no other asks the same."""
        if outcome.drop is not None:
            return outcome
        asked, pointing, picture, passage = outcome.asked, outcome.pointing, outcome.picture, outcome.passage
        assert asked is not None
        assert pointing is not None
        assert picture is not None
        finds = self._recipe.finds[_draw(self._recipe.seed, "finds", passage.key) % len(self._recipe.finds)]
        answer = self._answer(passage, picture, finds)
        if answer is None:
            return replace(outcome, drop=Drop.NO_PICTURE)
        content = [finds.value, pointing.query, picture.drawn or picture.document, answer, passage.text]
        query = pointing.query, picture.drawn or picture.document
        if query in self._seen:
            return replace(outcome, drop=Drop.REPEATED)
        self._seen.add(query)
        made = self._made | {
            "passage_of": passage.document,
            "question": asked.query,
            "reply": asked.reply,
            "thing": pointing.thing,
            "rank": outcome.rank,
            "similarity": picture.similarity,
            "corrected": picture.corrected,
        }
        return replace(
            outcome,
            record=SynthesisedRecord(
                digest_of(list(content)),
                finds,
                pointing.query,
                picture.document,
                picture.drawn,
                answer,
                passage.text,
                made,
            ),
        )

    def _answer(self, passage: Passage, picture: Picture, finds: Finds) -> str | None:
        """The document to be found: if its image is found, too, it must differ from the query's."""
        if finds is Finds.TEXT:
            return passage.document
        others = [each for each in passage.illustrated if each != picture.document]
        return others[_draw(self._recipe.seed, "answer", passage.key) % len(others)] if others else None


def _asked(outcome: Outcome) -> Asked:
    assert outcome.asked is not None
    return outcome.asked


def _said(answer: Answer) -> str:
    return answer if isinstance(answer, str) else answer.message


def _draw(seed: int, what: str, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {what} {key}".encode()).digest()[:8])


def _identified(embedder: Any) -> dict[str, JsonValue]:
    return {"name": embedder.name, "digest": embedder.fingerprint().digest}


def _plain(recipe: SynthesisRecipe) -> dict[str, JsonValue]:
    """The recipe without its device and prompt folder, whose digest is recorded instead."""
    values = {name: value for name, value in asdict(recipe).items() if name not in ("prompts", "device")}
    return {**values, "finds": [each.value for each in recipe.finds], "pictures": recipe.pictures.value}


def _write(found: Synthesis, folder: Path) -> None:
    from pipelines.synthesis.sheet import sheet

    atomic_write(folder / RECORDS, _lines([each.to_json() for each in found.kept]))
    atomic_write(folder / DROPPED, _lines([each.dropped() for each in found.outcomes if each.drop is not None]))
    atomic_write(folder / SHEET, sheet(found).encode())
    atomic_write(folder / SUMMARY, json.dumps(found.to_json(), indent=2, ensure_ascii=False).encode() + b"\n")


def _lines(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in entries).encode()
