"""The command `spaces`: list a collection's embedding spaces; add, fill or drop one; change the default.

What this module does not know: how any of it is done; `indexer` does it.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import CallError
from indexer.types import HelpfulEnum, Parts
from pipelines.cli import index as cli_index
from pipelines.cli.collection import AsJson, CollectionFolder, DatabaseUrl, Device, open_existing
from pipelines.terminal.console import counted, duration, err, examples, listed, out, plain, show_json, show_pairs

if TYPE_CHECKING:
    from indexer.collection import Collection
    from indexer.ingest.filling import Filled
    from indexer.ingest.summary import Progress

EPILOG = examples(
    "underdrawing spaces shop",
    "# Change the model: embed all documents by another one, then search it, then drop the first.",
    "underdrawing spaces shop add open_clip:ViT-L-14/openai --name large",
    "underdrawing spaces shop default large",
    "underdrawing spaces shop drop open_clip:ViT-B-32/laion2b_s34b_b79k",
    "# Embed documents that have no vector in a space yet:",
    "underdrawing spaces shop fill large",
)


class SpaceAction(HelpfulEnum):
    """What is done."""

    ADD = "add"
    FILL = "fill"
    DEFAULT = "default"
    DROP = "drop"


def spaces(
    collection: CollectionFolder,
    action: Annotated[
        SpaceAction | None,
        typer.Argument(metavar="[ACTION]", help="add, fill, default or drop; without it, list them."),
    ] = None,
    what: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The model to add, or the name of a space.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What an added space is called; the model's name if not told."),
    ] = None,
    parts: Annotated[
        Parts | None,
        typer.Option("--parts", help="What of a document an added space embeds; as the default space if not told."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="TYPE", help="float32 (if not told), bfloat16 or float16.")
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes that decode ahead of the model; 0 uses a thread.")
    ] = 0,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", metavar="N", help="Of one image when it is decoded, as for index.")
    ] = None,
    database: DatabaseUrl = None,
    trust: cli_index.Trust = False,
    as_json: AsJson = False,
) -> None:
    """List a collection's embedding spaces, embed its documents by another model, or drop a space.

    add and fill go on where a killed run stopped; searches, adding and deleting go on meanwhile. Then index and add
    embed every document in all spaces. To search another space than the default one: search --space NAME.
    """
    if action is not None and not what:
        raise CallError(
            f"spaces {action.value} needs {'a model' if action is SpaceAction.ADD else 'the name of a space'}.",
            f"Write: underdrawing spaces {collection} {action.value} NAME",
        )
    done: dict[str, Any] = {}
    with open_existing(collection, database, device=device, trust=trust) as opened:
        match action:
            case SpaceAction.ADD | SpaceAction.FILL:
                filled = _embedded(opened, action, str(what), name, parts, dtype, workers, max_pixels)
                done = {**asdict(filled), "reasons": dict(filled.reasons)}
                if not as_json:
                    _show_filled(filled)
            case SpaceAction.DEFAULT:
                opened.set_default_space(str(what))
            case SpaceAction.DROP:
                dropped = _dropped(opened, collection, str(what))
                done = {"dropped": dropped}
                if not as_json:
                    out.print(f"Dropped {counted(dropped, 'vector')}; compact drops their rows.")
        found = opened.spaces
    if as_json:
        show_json({"spaces": [asdict(each) for each in found], **done})
        return
    show_pairs(
        [
            (
                plain(each.name),
                f"{plain(each.model)}, {each.dim} dimensions; {counted(each.documents, 'document')}"
                + (f", {each.missing:,} without a vector" if each.missing else "")
                + ("; the default" if each.default else ""),
            )
            for each in found
        ],
        "bold",
    )


def _dropped(opened: Collection, folder: Path, name: str) -> int:
    """The vectors of a space that is dropped; the default one has the command line's own remedy."""
    try:
        return opened.drop_space(name)
    except CallError as error:
        others = [each.name for each in opened.spaces if not each.default]
        if others and name not in others and any(each.name == name for each in opened.spaces):
            default = shlex.join(["underdrawing", "spaces", str(folder), "default", others[0]])
            error.remedy = f"Make another one the default first: {default}"
        raise


def _embedded(
    opened: Collection,
    action: SpaceAction,
    what: str,
    name: str | None,
    parts: Parts | None,
    dtype: str | None,
    workers: int,
    max_pixels: int | None,
) -> Filled:
    from indexer.ingest.filling import fill

    with err.status("Loading the model") as status:

        def on_progress(job: Progress) -> None:
            status.update(f"Embedding: {counted(job.prepared, 'document')}, {job.added:,} stored")

        if action is SpaceAction.FILL:
            space = opened.open_spaces.named(what)
            return fill(opened, space, workers=workers, max_pixels=max_pixels, on_progress=on_progress)
        return opened.add_space(
            what, name, parts=parts, dtype=dtype, workers=workers, max_pixels=max_pixels, on_progress=on_progress
        )


def _show_filled(filled: Filled) -> None:
    out.print(
        f"Embedded {counted(filled.embedded, 'document')} in {duration(filled.seconds)}."
        + (f" {filled.reasons.total():,} cannot be: {listed(filled.reasons)}." if filled.reasons else "")
    )
    for each in filled.rejected[:20]:
        out.print(f"  {each.reason}  {plain(each.uri)}", markup=False, soft_wrap=True)
