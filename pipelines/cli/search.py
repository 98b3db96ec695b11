"""The command `search`: a query in, a table, JSON or an HTML page out.

What this module does not know: how anything is found, and how the page looks.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import CallError
from pipelines.cli import index as cli_index
from pipelines.cli.collection import CollectionFolder, DatabaseUrl, Device, open_existing
from pipelines.cli.request import taking_request, with_options
from pipelines.terminal.console import counted, err, examples, hushed_models, out, plain, show_json, show_remark
from retrieval.request import SearchRequest

if TYPE_CHECKING:
    from indexer.collection import Collection
    from retrieval.results import Results

EPILOG = examples(
    'underdrawing search shop "a red lamp"',
    'underdrawing search shop "at night" --image reference.jpg',
    'underdrawing search shop "in blue" --like lamps/17.jpg --method product -k 5',
    'underdrawing search shop "at night" --image reference.jpg --method cig --pseudo-targets made/ --html found.html',
    'underdrawing search shop "at night" --image reference.jpg --captioner Salesforce/blip-image-captioning-base '
    "--rewriter Qwen/Qwen2.5-1.5B-Instruct",
    'underdrawing search pages "the same chart by year" --image chart.png --method joint',
    'underdrawing search shop "how to fit a lamp" --modality text --modality image+text',
    'underdrawing search shop lamp --not floor --where \'{"price": {"$lt": 50}}\' --html found.html',
)
OUTPUT = "What comes out"
SLUG = 40
"""Characters of the text in the name of a saved pseudo-target."""

PseudoTargetFolder = Annotated[
    Path | None,
    typer.Option("--pseudo-targets", metavar="DIR", help="Save the pseudo-targets there.", rich_help_panel=OUTPUT),
]
FormerDrawings = Annotated[Path | None, typer.Option("--drawings", metavar="DIR", hidden=True)]


def generates(method: str) -> bool:
    """Whether a method makes pseudo-targets.

    Raises:
        UnknownNameError: No such method.
    """
    from retrieval.methods import Helper, load_method

    return Helper.GENERATOR in load_method(method).needs


@taking_request
def search(
    collection: CollectionFolder,
    request: SearchRequest,
    device: Device = "auto",
    pseudo_targets: PseudoTargetFolder = None,
    drawings: FormerDrawings = None,
    memory: cli_index.Memory = None,
    index: cli_index.Kind = None,
    index_device: cli_index.OnDevice = None,
    database: DatabaseUrl = None,
    trust: cli_index.Trust = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, and nothing else, on stdout.", rich_help_panel=OUTPUT),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page with the images, complete in itself.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:  # fmt: skip
    """Search a collection by text, by image, or by both together.

    With both, the text says how the answer differs from the image: "at night", "with dark skin", "in blue".
    """
    from retrieval.service import SearchService

    folder = pseudo_targets or drawings
    if folder is not None and request.method is None:
        request = replace(request, method="cig")
    elif folder is not None and request.method is not None and not generates(request.method):
        raise CallError(
            f"The method {request.method} makes no pseudo-targets to save.",
            "Leave out --pseudo-targets, or choose --method cig.",
        )
    settings = cli_index.index_settings(memory, index, index_device)
    with open_existing(collection, database, device=device, index=settings, trust=trust) as opened:
        service = SearchService(opened, device=device)
        # A person waits who has asked for a method: what cannot be loaded is said before anything is searched.
        asked = service.check(request)
        quietly = hushed_models if "generator" in service.needs(asked) else nullcontext
        with err.status("Loading"), quietly():
            service.load(asked, caption=asked.caption is None)
        with err.status("Searching"):
            results = service.search(request)
        results = replace(results, notes=tuple(map(with_options, results.notes)))
        if html is not None:  # before the answer, so that a call whose page cannot be written shows its error alone
            _write_page(html, request, results, opened)
    if as_json:
        show_json(results.to_json())
    else:
        _show(results, request)
    if html is not None:
        show_remark(f"Wrote {html}")
    if folder is not None:
        _save(folder, request.text or "", results)


def filtered_by(where: Any) -> tuple[str, ...]:
    """The names of the fields that a filter asks about, in its order."""
    if isinstance(where, list):
        return tuple(dict.fromkeys(name for each in where for name in filtered_by(each)))
    if not isinstance(where, dict):
        return ()
    own = [
        # `size.width` is a part of the field `size`, or the name of a field.
        (name, name.partition(".")[0]) if not name.startswith("$") else filtered_by(each)
        for name, each in where.items()
    ]
    return tuple(dict.fromkeys(name for names in own for name in names))


def _write_page(file: Path, request: SearchRequest, results: Results, collection: Collection) -> None:
    from indexer.files.atomic import atomic_write
    from pipelines.pages.report import search_page, stored_images

    reference: Any = request.image
    if request.like is not None and results.hits:
        with collection.snapshot(*request.space[:1]) as snapshot:
            [document] = snapshot.documents(snapshot.vector_ids([request.like]))
        reference = stored_images(document)
    page = search_page(request.query, results, reference, filtered_by(request.where))
    atomic_write(file, page.encode("utf-8", "backslashreplace"))


def _save(folder: Path, text: str, results: Results) -> None:
    """Copy the pseudo-targets to the folder that the call named, and say so.

    Raises:
        OSError: The folder cannot be written.
    """
    from indexer.files.atomic import atomic_write
    from pipelines.pages.artifacts import image_files

    name = re.sub(r"\W+", "-", text).strip("-")[:SLUG].lower()
    for number, image in enumerate(image_files(results)):
        # Eight digits of its key: the same text has other pseudo-targets with another reference or seed.
        file = folder / f"{name}-{image.name[:8]}-{number}.png".removeprefix("-")
        atomic_write(file, image.read_bytes())
        show_remark(f"Wrote {file}")


def _show(results: Results, request: SearchRequest) -> None:
    from pipelines.pages.artifacts import shown_artifacts
    from pipelines.terminal.hit_table import show_hits, stages

    if results.hits:
        show_hits(results, out.width, filtered_by(request.where))
    else:
        out.print("Nothing found.")
    for note in results.notes:
        out.print(f"note: {plain(note)}", markup=False, style="yellow")
    for artifact in shown_artifacts(results):
        out.print(plain(artifact.line), markup=False, soft_wrap=True)
    told = [counted(len(results), "hit"), f"method {results.method}", results.model, f"generation {results.generation}"]
    took = [f"{stage} {milliseconds:,.0f} ms" for stage, milliseconds in stages(results).items()]
    for line in (" · ".join(told), " · ".join(took), f"score: {results.scale}" if results.hits else ""):
        if line:
            out.print(plain(line), markup=False, style="dim", soft_wrap=True)
