"""The command `search`: a question in, a table, JSON or an HTML page out.

What this module does not know: how anything is found, and how the page looks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import FilterError
from pipelines.cli import drawing as cli_drawing
from pipelines.cli import index as cli_index
from pipelines.cli import writing as cli_writing
from pipelines.cli.collection import CollectionFolder, DatabaseUrl, open_existing
from pipelines.terminal.console import counted, err, examples, out, plain, shortened, show_json, show_remark

if TYPE_CHECKING:
    from indexer.collection import Collection
    from retrieval.query import Query
    from retrieval.results import Results

EPILOG = examples(
    'underdrawing search shop "a red lamp"',
    'underdrawing search shop "at night" --image reference.jpg',
    'underdrawing search shop "in blue" --like lamps/17.jpg --method product -k 5',
    'underdrawing search shop "at night" --image reference.jpg --method cig --drawings drawn/ --html found.html',
    'underdrawing search shop "at night" --image reference.jpg --captioner Salesforce/blip-image-captioning-base '
    "--rewriter Qwen/Qwen2.5-1.5B-Instruct",
    'underdrawing search pages "the same chart by year" --image chart.png --method joint',
    'underdrawing search shop "how to fit a lamp" --modality text --modality image+text',
    'underdrawing search shop lamp --not floor --where \'{"price": {"$lt": 50}}\' --html found.html',
)
QUICK = ("sum", "slerp", "product", "shift", "inversion")
WHERE_EXAMPLE = (
    """A filter is a JSON object, quoted for the shell: --where '{"year": {"$gte": 2020}, "camera": "NIKON D850"}'"""
)

PARTS = "What to look for"
METHOD = "How"
OUTPUT = "What comes out"


def search(
    collection: CollectionFolder,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="What it shows, or how it differs from the reference."),
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="The reference picture.", rich_help_panel=PARTS)
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="ID", help="A stored document as the reference.", rich_help_panel=PARTS),
    ] = None,
    not_texts: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="TEXT", help="What it should not match; repeatable.", rich_help_panel=PARTS),
    ] = None,
    not_images: Annotated[
        list[Path] | None,
        typer.Option(
            "--not-image", metavar="FILE", help="What it should not resemble; repeatable.", rich_help_panel=PARTS
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            metavar="JSON",
            help="A filter on fields, $id and $text: $eq $ne $lt $lte $gt $gte $in $nin $exists $contains "
            "$startsWith $date $and $or $not; docs/filters.md has them all.",
            rich_help_panel=PARTS,
        ),
    ] = None,
    modalities: Annotated[
        list[str] | None,
        typer.Option(
            "--modality", metavar="NAME",
            help="Only documents that are a text, an image or image+text; repeatable.", rich_help_panel=PARTS,
        ),
    ] = None,
    keep_reference: Annotated[
        bool,
        typer.Option(
            "--keep-reference",
            help="Let the reference itself be found; with a text, documents with that very image are left out.",
            rich_help_panel=PARTS,
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="text, image, sum, slerp, product, shift, inversion, cig, caption or joint. If not told: for a text "
            "with a reference what did best with this model where it was tuned, or sum; else the part there is; or the "
            "method that the options below are for.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction", metavar="TEXT", help="What is to be found, for a model that reads one (mllm:NAME).",
            rich_help_panel=METHOD,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", metavar="N", help="How many hits.", rich_help_panel=METHOD)] = 10,
    image_weight: Annotated[
        float | None,
        typer.Option(
            "--image-weight", metavar="X", help="Of the reference in sum, inversion, cig; in place of the tuned one.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    text_weight: Annotated[
        float | None,
        typer.Option(
            "--text-weight", metavar="X", help="Of the text in sum, in place of the tuned one.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    centre: Annotated[
        str,
        typer.Option(
            "--centre", metavar="NAME",
            help="Compare texts, pictures and both without what sets them apart: auto (where a collection mixes them), "
            "on, means or off.",
            rich_help_panel=METHOD,
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="NAME", rich_help_panel=METHOD,
            help="Where models run: auto (a card where there is one), cpu, cuda, cuda:1, mps.",
        ),
    ] = "auto",
    inversion: cli_drawing.InversionName = None,
    generator: cli_drawing.GeneratorName = None,
    merge: cli_drawing.MergeName = None,
    steps: cli_drawing.Steps = None,
    guidance: cli_drawing.Guidance = None,
    images: cli_drawing.Images = None,
    seed: cli_drawing.Seed = None,
    regenerate: cli_drawing.Regenerate = False,
    deadline_ms: cli_drawing.DeadlineMs = None,
    gate: cli_drawing.Gate = None,
    drawings: cli_drawing.DrawingsFolder = None,
    captioner: cli_writing.CaptionerName = None,
    rewriter: cli_writing.RewriterName = None,
    caption: cli_writing.CaptionText = None,
    rewrite: cli_writing.Rewrite = False,
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
            "--html", metavar="FILE", help="Write a page with the pictures, complete in itself.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:  # fmt: skip
    """Search a collection by text, by picture, or by both together.

    With both, the text says how the answer differs from the picture: "at night", "with dark skin", "in blue".
    """
    condition = parse_where(where)
    from retrieval.methods import Method
    from retrieval.query import Query, Weights

    drawing = cli_drawing.DrawingCall(
        inversion=inversion,
        generator=generator,
        merge=merge,
        steps=steps,
        guidance=guidance,
        images=images,
        seed=seed,
        regenerate=regenerate,
        deadline_ms=deadline_ms,
        gate=gate,
        drawings=drawings,
    )
    writing = cli_writing.WritingCall(captioner, rewriter, caption, rewrite)
    query = Query(
        text=text,
        image=image,
        like=like,
        not_texts=tuple(not_texts or ()),
        not_images=tuple(not_images or ()),
        caption=caption,
        instruction=instruction,
        weights=Weights(image=image_weight, text=text_weight),
    )
    settings = cli_index.index_settings(memory, index, index_device)
    with open_existing(collection, database, device=device, index=settings, trust=trust) as opened:
        implied = method or drawing.implied_method() or writing.implied_method()
        chosen = Method(implied or default_method(query, opened.space.model))
        drawing.check(chosen, query)
        writing.check(chosen, query)
        _require_asked(opened, query, condition)
        retriever = drawing.retriever(opened, chosen, device, writing.scribe(chosen, device), centre)
        with err.status("Searching"):
            results = retriever.search(query, k, condition, modalities=modalities or (), keep_reference=keep_reference)
        if html is not None:
            _write_page(html, query, results, opened)
    drawing.save(query, results)
    if as_json:
        show_json(results.to_json())
    else:
        _show(results)


def default_method(query: Query, model: str) -> str:
    """`text` or `image` for a query of one part; for a composed one what did best with this model, or `sum`.

    What is chosen among costs no more than an embedding. Weights that a query brings are those of `sum`.
    """
    from retrieval.methods.weights import preferred

    parts = query.parts()
    if "text" in parts and "image" in parts:
        weighed = query.weights is not None and query.weights.given()
        return "sum" if weighed else preferred(model, QUICK) or "sum"
    return "text" if "text" in parts else "image"


def parse_where(value: str | None) -> Any:
    """The filter in a `--where`; what it means is looked at when it is compiled.

    Raises:
        FilterError: It is not JSON; it says where, and shows one that is.
    """
    if value is None:
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        cause = f"{error.msg.lower()} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        cause = str(error)
    raise FilterError(f"--where is not JSON: {cause}: {shortened(value, 80)}", WHERE_EXAMPLE)


def _require_asked(collection: Collection, query: Query, condition: Any) -> None:
    """See that what a query names is there, which costs less than the models that read it.

    Raises:
        QueryError: An image file is missing, or the document that it asks for more like is not there.
        FilterError: The filter does not parse.
    """
    from retrieval.encode import require_pictures, stored_references

    require_pictures([query])
    with collection.snapshot() as snapshot:
        if query.like is not None and len(snapshot):
            stored_references(snapshot, [query.like])
        if condition is not None:
            snapshot.require_filter(condition)


def _write_page(file: Path, query: Query, results: Results, collection: Collection) -> None:
    from indexer.files.atomic import atomic_write
    from pipelines.pages.report import search_page, stored_images

    reference: Any = query.image
    if query.like is not None and results.hits:
        with collection.snapshot() as snapshot:
            [document] = snapshot.documents(snapshot.vector_ids([query.like]))
        reference = stored_images(document)
    atomic_write(file, search_page(query, results, reference).encode("utf-8", "backslashreplace"))
    show_remark(f"Wrote {file}")


def _show(results: Results) -> None:
    from pipelines.terminal.hit_table import show_hits, stages

    if results.hits:
        show_hits(results, out.width)
    else:
        out.print("Nothing found.")
    for note in results.notes:
        out.print(f"note: {plain(note)}", markup=False, style="yellow")
    if results.pseudo_target is not None:
        out.print(plain(_drawing(results)), markup=False, soft_wrap=True)
    if results.written is not None:
        out.print(plain(_writing(results)), markup=False, soft_wrap=True)
    told = [counted(len(results), "hit"), f"method {results.method}", results.model, f"generation {results.generation}"]
    took = [f"{stage} {milliseconds:,.0f} ms" for stage, milliseconds in stages(results).items()]
    for line in (" · ".join(told), " · ".join(took), f"score: {results.scale}" if results.hits else ""):
        if line:
            out.print(plain(line), markup=False, style="dim", soft_wrap=True)


def _drawing(results: Results) -> str:
    from pipelines.pages.report import drawings, drawn_how

    first, *others = map(str, drawings(results))
    return f"pseudo-target: {drawn_how(results)}: {first}" + (f" and {len(others)} more" if others else "")


def _writing(results: Results) -> str:
    from pipelines.pages.report import written_how

    how = written_how(results)
    return f"searched for: {(results.written or {}).get('sentence')}" + (f" ({how})" if how else "")
