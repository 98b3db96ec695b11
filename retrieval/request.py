"""Search requests: every field with its type, default, help and group, declared once.

The command line derives its options from these fields, and HTTP its schema. An error names a field between backticks
(`` `steps` ``); a front end that calls it something else puts its own name there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from indexer.arguments import described
from indexer.errors import RequestError, did_you_mean
from indexer.types import Center, HelpfulEnum, JsonValue, Modality
from retrieval.fields import NAMED, REFINE, SEVERAL, FieldInfo, Group, Kind, checked, from_json, option
from retrieval.query import Picture, Query, Weights

_GENERATOR: Final[Mapping[str, Any]] = {"trait": "generator"}
_REFINE: Final[Mapping[str, Any]] = {"trait": REFINE}
_REWRITER: Final[Mapping[str, Any]] = {"trait": "rewriter"}


class Fusion(HelpfulEnum):
    """What of a ranking counts where several become one; see `retrieval/late_fusion.py`."""

    RANKS = "ranks"
    SCORES = "scores"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search: the settings of a retriever.

    A field that is None has the default of the service, the method or the model.

    Raises:
        RequestError: A field is of the wrong type or out of range; its `field` names it.
    """

    collection: str | None = option(
        None, Kind.NAME, Group.METHOD, "The collection to search, where several are served.", "NAME"
    )
    space: tuple[str, ...] = option(
        (), Kind.NAMES, Group.METHOD,
        "The embedding space to search, where a collection has several. Repeatable: the rankings of several spaces "
        "become one.",
        "NAME",
    )  # fmt: skip
    fusion: str | None = option(
        None, Kind.NAME, Group.METHOD,
        "How the rankings of several spaces become one: ranks (reciprocal ranks, the default) or scores (standardized "
        "scores).",
        "NAME", among=Fusion,
    )  # fmt: skip
    method: str | None = option(
        None, Kind.NAME, Group.METHOD,
        "text, image, sum, slerp, product, shift, inversion, cig, caption, joint, or any other that is registered. By "
        "default, for a text with a reference, the method that did best with this model where it was tuned, or sum; "
        "the only part of any other query; or the method that the options below are for.",
        "NAME",
    )  # fmt: skip
    weights: Weights | None = option(
        None, Kind.WEIGHTS, Group.METHOD, "The weight of a part, in place of the tuned one; repeatable.", "NAME=X"
    )
    center: str = option(
        "auto", Kind.NAME, Group.METHOD,
        "Correct the modality gap, so that texts, images and documents of both compete fairly: auto (if a collection "
        "mixes them), on, means or off.",
        "NAME", among=Center,
    )  # fmt: skip
    rerank: str | None = option(
        None, Kind.PART, Group.RERANK,
        "Score the first hits again with a re-ranker, which reads query and document together.", "NAME",
    )  # fmt: skip
    rerank_depth: int | None = option(
        None,
        Kind.WHOLE,
        Group.RERANK,
        "How many hits it scores; 50 by default, and at least k.",
        "N",
        least=1,
    )
    inversion: str | Path | None = option(
        None, Kind.MODEL, Group.PSEUDO_TARGET,
        "The inversion that makes the reference's pseudo-word, for inversion and cig: bundled, trained, or a published "
        "Phi. By default, the one that comes with the collection's model.",
        "NAME|DIR|FILE", trait="inversion", local=True,
    )  # fmt: skip
    generator: str | Path | None = option(
        None, Kind.MODEL, Group.PSEUDO_TARGET,
        "The generator of pseudo-targets, for cig. By default, the one that comes with the collection's model.",
        "NAME|DIR", local=True, **_GENERATOR,
    )  # fmt: skip
    merge: str | None = option(
        None, Kind.NAME, Group.PSEUDO_TARGET,
        "How cig uses a pseudo-target: embed (the default), reinvert or product.", "NAME", trait=NAMED,
    )  # fmt: skip
    steps: int | None = option(
        None, Kind.WHOLE, Group.PSEUDO_TARGET, "Denoising steps; the generator's default if not given.", "N",
        least=1, **_GENERATOR,
    )  # fmt: skip
    guidance: float | None = option(
        None, Kind.NUMBER, Group.PSEUDO_TARGET, "How closely it follows the text; up to 1, a step costs half.", "X",
        **_GENERATOR,
    )  # fmt: skip
    pseudo_target_count: int | None = option(
        None, Kind.WHOLE, Group.PSEUDO_TARGET, "Pseudo-targets to generate; their vectors are averaged.", "N",
        least=1, **_GENERATOR,
    )  # fmt: skip
    seed: int | None = option(
        None,
        Kind.WHOLE,
        Group.PSEUDO_TARGET,
        "The seed of the noise; 0 by default.",
        "N",
        least=0,
        trait="generator",
    )
    regenerate: bool = option(
        False,
        Kind.FLAG,
        Group.PSEUDO_TARGET,
        "Generate pseudo-targets again even if they are in the cache.",
        trait="generator",
    )
    deadline_ms: float | None = option(
        None, Kind.NUMBER, Group.PSEUDO_TARGET,
        "Answer without the pseudo-target if it takes longer; it is finished in the background and cached. Also the "
        "time limit of a re-ranker.", "X",
        least=0, **_REFINE,
    )  # fmt: skip
    gate: float | None = option(
        None, Kind.NUMBER, Group.PSEUDO_TARGET,
        "Generate only if the two best scores without a pseudo-target are closer than this.", "X", **_REFINE,
    )  # fmt: skip
    captioner: str | Path | None = option(
        None, Kind.MODEL, Group.CAPTION,
        "The model that says what the reference shows, for caption: an image-to-text model of transformers, or a JSON "
        "object of captions by file name.",
        "NAME|DIR|table:FILE", trait="captioner", local=True,
    )  # fmt: skip
    rewriter: str | Path | None = option(
        None, Kind.MODEL, Group.CAPTION,
        "The model that changes the caption as the text says: a chat model of transformers; an endpoint that speaks "
        "OpenAI's protocol (key from OPENAI_API_KEY; without @URL, at OPENAI_BASE_URL); or join: both side by side.",
        "NAME|DIR|api:MODEL@URL|join", local=True, **_REWRITER,
    )  # fmt: skip
    rewrite: bool = option(
        False,
        Kind.FLAG,
        Group.CAPTION,
        "Caption and rewrite again even if the answers are in the cache.",
        trait="rewriter",
    )

    def __post_init__(self) -> None:
        for name, info in fields_of(type(self)).items():
            value = getattr(self, name)
            if value is None and info.kind in SEVERAL:
                object.__setattr__(self, name, ())
            elif value is not None:
                object.__setattr__(self, name, checked(value, name, info))

    def given(self) -> Iterator[str]:
        """The names of the fields that differ from their defaults."""
        for each in fields(self):
            if getattr(self, each.name) != each.default:
                yield each.name


@dataclass(frozen=True, kw_only=True)
class SearchRequest(SearchOptions):
    """One search: what to look for, how, and how much of it.

    Types are those of `Query`: an image is a path, encoded bytes or a PIL image.

    Raises:
        RequestError: A field is of the wrong type or out of range; its `field` names it.
        QueryError: The fields do not go together: two references, or nothing to look for.
    """

    text: str | None = option(
        None, Kind.TEXT, Group.PARTS, "What the answer shows, or how it differs from the reference.", "TEXT"
    )
    image: Picture | None = option(None, Kind.IMAGE, Group.PARTS, "The reference image.", "FILE")
    like: str | None = option(None, Kind.NAME, Group.PARTS, "A stored document as the reference.", "ID")
    not_texts: tuple[str, ...] = option((), Kind.TEXTS, Group.PARTS, "A text it should not match; repeatable.", "TEXT")
    not_images: tuple[Picture, ...] = option(
        (), Kind.IMAGES, Group.PARTS, "An image it should not resemble; repeatable.", "FILE"
    )
    wordings: tuple[str, ...] = option(
        (), Kind.TEXTS, Group.PARTS, "A paraphrase of the text; their vectors are averaged; repeatable.", "TEXT"
    )
    where: Mapping[str, Any] | None = option(
        None, Kind.FILTER, Group.PARTS,
        "A filter on fields, $id and $text: $eq $ne $lt $lte $gt $gte $in $nin $exists $contains $startsWith $date "
        "$and $or $not; docs/filters.md has them all.",
        "JSON",
    )  # fmt: skip
    exclude: tuple[str, ...] = option((), Kind.NAMES, Group.PARTS, "A document id to leave out; repeatable.", "ID")
    modalities: tuple[str, ...] = option(
        (), Kind.NAMES, Group.PARTS, "Only documents of this modality: text, image or image+text; repeatable.", "NAME",
        among=Modality,
    )  # fmt: skip
    keep_reference: bool = option(
        False, Kind.FLAG, Group.PARTS,
        "Let results include the reference itself and, with a text, documents with the very same image.",
    )  # fmt: skip
    k: int = option(10, Kind.WHOLE, Group.METHOD, "The number of hits.", "N", least=1)
    instruction: str | None = option(
        None, Kind.TEXT, Group.METHOD, "The task in words, for a model that reads an instruction (mllm:NAME).", "TEXT"
    )
    caption: str | None = option(
        None, Kind.TEXT, Group.CAPTION,
        "What the reference shows, for shift, and for caption in place of a captioner.", "TEXT",
        trait="captioner",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.query  # the fields of a query are checked together

    @cached_property
    def query(self) -> Query:
        """The parts to look for."""
        return Query(
            text=self.text,
            image=self.image,
            like=self.like,
            not_texts=self.not_texts,
            not_images=self.not_images,
            caption=self.caption,
            instruction=self.instruction,
            wordings=self.wordings,
        )

    @classmethod
    def from_json(cls, value: object, *, local: bool = False) -> SearchRequest:
        """The request in a parsed JSON object, with images as base64 of an encoded file or as `data:` URLs.

        Args:
            value: The object; its keys are the names of fields.
            local: Whether the request may name files, models and services of this machine.

        Raises:
            RequestError: It is not an object, a key is not known, or a value is wrong; `field` names it.
            QueryError: The fields do not go together.
        """
        if not isinstance(value, Mapping):
            raise RequestError("", f"A request is a JSON object, not {described(value)}.")
        known = fields_of(cls)
        given: dict[str, Any] = {}
        for name, own in value.items():
            if name not in known:
                raise RequestError(
                    str(name), f"A search has no field {str(name)[:80]!r}.", f"{did_you_mean(str(name), list(known))}."
                )
            if own is not None:
                given[name] = from_json(own, name, known[name], local=local)
        return cls(**given)

    @classmethod
    def schema(cls, *, local: bool = False) -> dict[str, JsonValue]:
        """The JSON schema (draft 2020-12) of the objects that `from_json` takes."""
        properties = {
            each.name: each.metadata["info"].schema(each.default)
            for each in fields(cls)
            if local or not each.metadata["info"].local
        }
        return {"title": "SearchRequest", "type": "object", "properties": properties, "additionalProperties": False}


def fields_of(options: type[SearchOptions]) -> Mapping[str, FieldInfo]:
    """The description of each field by name, in order."""
    return {each.name: each.metadata["info"] for each in fields(options)}
