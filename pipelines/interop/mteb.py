"""Adapters that let mteb 2 evaluate our embedders and methods.

    mteb.evaluate(MtebEncoder("bundled:emoji-clip"), mteb.get_tasks(tasks=["CIRRIT2IRetrieval"]))
    mteb.evaluate(MtebRetriever("bundled:emoji-clip", "inversion"), ...)

`MtebEncoder` gives vectors, for tasks of any kind; mteb itself compares them. `MtebRetriever` answers retrieval tasks
with a real collection and one of our methods, so that a composed query is more than the sum of its parts.

Both stand among the programs, since they measure: what is measured (`indexer`, `retrieval`) need not know by whom. They
fulfil mteb's protocols by their shape, without its base classes; mteb is imported where the model's card is written.

What this module does not know: tasks, measures, models.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer import Collection, Document
from indexer.deprecation import renamed_arguments
from indexer.embed import load_embedder
from indexer.embed.base import Dtype, Embedder
from indexer.errors import CallError, MissingExtraError
from indexer.types import Item, Modality, Vectors
from retrieval import CaptionRewriter, Method, PseudoTargetProvider, Query, SearchOptions, SearchService
from retrieval.methods import load_method
from retrieval.retriever import RENAMED

TOGETHER = 256
"""Documents of one commit, and queries of one batch."""


class MtebEncoder:
    """An embedder, as mteb's `EncoderProtocol` has it.

    Args:
        model_name: An embedder, or what `load_embedder` takes.
        revision: Ignored: a revision is the fingerprint of what was loaded.
        device: Where it runs; None to choose, as `auto` does.
        dtype: Its arithmetic, for one that is loaded here.

    Raises:
        MissingExtraError: mteb is not installed.
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        model_name: str | Embedder,
        revision: str | None = None,
        *,
        device: str | None = None,
        dtype: str | Dtype = Dtype.FLOAT32,
        **_: Any,
    ) -> None:
        self.model = _embedder(model_name, device, dtype)
        self.mteb_model_meta = model_meta(self.model)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> Vectors:
        """The vectors of all inputs: (n, dim) float32, rows of unit length.

        Args:
            inputs: Batches: lists by column, of which `text` and `image` are read.
            task_metadata: Its prompt is the instruction of queries.
            hf_split: Not read.
            hf_subset: Not read.
            prompt_type: `document` for documents; anything else is a query, with the instruction if it is told so.

        Raises:
            ItemsError: Inputs that cannot be embedded; mteb has no place for a missing row.
            CallError: The model has no encoder for an input, or it is neither text nor image.
        """
        told = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        instruction = _instruction(task_metadata) if told == "query" else None
        rows = []
        for batch in inputs:
            items = _items(batch)
            if told == "document":
                rows.append(self.model.encode_document(items))
            else:
                rows.append(self.model.encode_query(items, instruction))
        return np.concatenate(rows) if rows else np.empty((0, self.model.dim), np.float32)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> npt.NDArray[np.float32]:
        """Cosines: (n, dim) and (m, dim), arrays or tensors, to (n, m) float32."""
        return _rows(embeddings1) @ _rows(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> npt.NDArray[np.float32]:
        """Cosines of pairs: (n, dim) twice to (n,) float32."""
        return np.asarray((_rows(embeddings1) * _rows(embeddings2)).sum(1), np.float32)


class MtebRetriever:
    """A method on a collection, as mteb's `SearchProtocol` has it.

    Each corpus is a collection in a temporary folder, which goes when this object does.

    Args:
        model_name: An embedder, or what `load_embedder` takes.
        method: A name of `METHODS`, for queries of both text and image; those of one part are searched by that part.
        device: Where the model runs; None to choose, as `auto` does.
        dtype: Its arithmetic, for one that is loaded here.
        pseudo_targets: As `SearchService` takes it.
        captions: As `SearchService` takes it.
        options: Fields of `SearchOptions`: weights, merge, gate, center.

    Raises:
        MissingExtraError: mteb is not installed.
        UnknownNameError: No such method.
        ModelError: The model cannot be loaded.
    """

    def __init__(
        self,
        model_name: str | Embedder,
        method: str | Method = Method.SUM,
        *,
        device: str | None = None,
        dtype: str | Dtype = Dtype.FLOAT32,
        pseudo_targets: PseudoTargetProvider | None = None,
        captions: CaptionRewriter | None = None,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"pseudo_targets": pseudo_targets, "captions": captions}
        old = {name: options.pop(name) for name in list(options) if name in RENAMED}
        settled = renamed_arguments("MtebRetriever", old, RENAMED, given)
        options |= {name: value for name, value in settled.items() if name not in given}
        self.model = _embedder(model_name, device, dtype)
        self.method = load_method(method).name
        self.mteb_model_meta = model_meta(self.model, self.method)
        self._options = SearchOptions(method=self.method, **options)
        self._helpers = {name: settled[name] for name in given}
        self._folder = Path(tempfile.mkdtemp(prefix="underdrawing-mteb-"))
        self._collections: list[Collection] = []
        # mteb closes nothing.
        self._finalizer = weakref.finalize(self, _discard, self._folder, self._collections)

    def index(self, corpus: Iterable[Mapping[str, Any]], *, task_metadata: Any, **_: Any) -> None:
        """Make a collection of a corpus, in place of the one before.

        Args:
            corpus: Rows with `id`, and `text`, `title` or `image` as the task has them.
            task_metadata: Says which of them count.

        Raises:
            CallError: A document cannot be used: it would be missing from the ranking unsaid.
        """
        collection = Collection.open(self._folder / str(len(self._collections)), self.model)
        self._collections.append(collection)
        for rows in _batches(corpus):
            added = collection.add(
                [_document(row, _parts(task_metadata, "document")) for row in rows], skip_rejected=True
            )
            if added.rejected:
                first = added.rejected[0]
                raise CallError(
                    f"{len(added.rejected)} of {len(rows)} documents cannot be used; {first.uri}: {first.detail}"
                )

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """For each query's id the scores of its best documents by id, or of those that are to be ranked.

        Args:
            queries: Rows with `id`, and `text` or `image` as the task has them.
            task_metadata: Says which of them count.
            top_k: How many.
            top_ranked: For each query's id the documents to rank; None for all there are.

        Raises:
            CallError: There is no corpus yet, or a query cannot be asked.
        """
        if not self._collections:
            raise CallError("There is nothing to search: index a corpus first.")
        service = SearchService(self._collections[-1], **self._helpers)
        answer: dict[str, dict[str, float]] = {}
        for rows in _batches(queries):
            asked = [_query(row, _parts(task_metadata, "query")) for row in rows]
            methods = [_method(query, self.method) for query in asked]
            for method in dict.fromkeys(methods):
                chosen = [place for place, own in enumerate(methods) if own == method]
                # What the options say is about the method that composes.
                composes = method == self.method
                retriever = service.retriever(self._options if composes else SearchOptions(method=method))
                encoded = retriever.encode([asked[place] for place in chosen])
                names = [str(rows[place]["id"]) for place in chosen]
                if top_ranked is None:
                    found = retriever.rank(encoded, top_k)
                else:
                    found = retriever.rank_among(encoded, [list(top_ranked.get(name, ())) for name in names])
                for name, each in zip(names, found, strict=True):
                    answer[name] = dict(zip(each.ids[:top_k], each.scores[:top_k], strict=True))
        return answer

    def close(self) -> None:
        """Close and remove the collections; done at last by itself."""
        self._finalizer()


def model_meta(embedder: Embedder, method: str | None = None) -> Any:
    """The model's card for mteb: a name that its results are filed under, and what the model takes.

    The revision is the fingerprint's digest, so that results of other weights, templates or arithmetic are never mixed.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction
    except ImportError:
        raise MissingExtraError("mteb", "mteb", "Being evaluated by mteb") from None
    told = ({"text"} if Modality.TEXT in embedder.modalities else set()) | (
        {"image"} if Modality.IMAGE in embedder.modalities else set()
    )
    name = re.sub(r"[^\w.]+", "-", embedder.name).strip("-") + ("" if method is None else f"-{method}")
    return ModelMeta.create_empty(
        overwrites={
            "name": f"underdrawing/{name}",
            "revision": embedder.fingerprint().digest,
            "embed_dim": embedder.dim,
            "modalities": sorted(told),
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch"],
        }
    )


def _discard(folder: Path, collections: list[Collection]) -> None:
    for each in collections:
        each.close()
    shutil.rmtree(folder, ignore_errors=True)


def _embedder(model: str | Embedder, device: str | None, dtype: str | Dtype) -> Embedder:
    return model if isinstance(model, Embedder) else load_embedder(model, dtype=dtype, device=device or "auto")


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    each = iter(rows)
    while batch := list(islice(each, TOGETHER)):
        yield batch


def _items(batch: Mapping[str, Any]) -> list[Item]:
    columns = {name: list(batch[name]) for name in ("text", "image") if batch.get(name) is not None}
    if not columns:
        raise CallError(f"An input has neither text nor image, but {', '.join(batch) or 'nothing'}.")
    size = len(next(iter(columns.values())))
    return [_item({name: own[row] for name, own in columns.items()}) for row in range(size)]


def _item(row: Mapping[str, Any]) -> Item:
    text, image = row.get("text"), row.get("image")
    # Where an image is, an empty text is none: the sets that mteb evaluates fill their gaps with it.
    return Item(text=None if image is not None and not (text or "").strip() else text or "", image=image)


def _instruction(task_metadata: Any) -> str | None:
    prompt = getattr(task_metadata, "prompt", None)
    told = prompt.get("query") if isinstance(prompt, Mapping) else prompt
    return str(told) if told else None


def _rows(embeddings: Any) -> npt.NDArray[np.float32]:
    """Vectors of any float dtype, arrays or tensors, as (n, dim) float32."""
    found = embeddings.detach().float().cpu().numpy() if hasattr(embeddings, "detach") else embeddings
    return np.atleast_2d(np.asarray(found, np.float32))


def _parts(task_metadata: Any, side: str) -> frozenset[str]:
    """`text`, `image` or both: what counts on a side of a task. Its data may have columns beyond."""
    from mteb.types import PromptType

    return frozenset(task_metadata.get_modalities(PromptType(side)))


def _document(row: Mapping[str, Any], parts: frozenset[str]) -> Document:
    text = f"{row.get('title') or ''} {row.get('text') or ''}".strip() if "text" in parts else ""
    return Document(str(row["id"]), text=text or None, image=row.get("image") if "image" in parts else None)


def _query(row: Mapping[str, Any], parts: frozenset[str]) -> Query:
    text = row.get("text") if "text" in parts else None
    if text is not None and not isinstance(text, str):
        raise CallError(f"The query {row['id']} is a conversation, which no method reads.", "Use MtebEncoder.")
    said = f"{text or ''} {row.get('instruction') or ''}".strip()
    return Query(text=said or None, image=row.get("image") if "image" in parts else None)


def _method(query: Query, composed: str) -> str:
    """The method for both parts, or that of the only one."""
    parts = query.parts()
    if "text" in parts and "image" in parts:
        return composed
    return "text" if "text" in parts else "image"
