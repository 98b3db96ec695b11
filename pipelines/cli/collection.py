"""The commands that fill and maintain a collection: `index`, `info`, `delete`, `check`, `compact`.

What this module does not know: how any of it is done; `indexer` does it.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.errors import SpaceMismatchError
from indexer.files.layout import Layout
from indexer.types import Parts
from pipelines.cli import columns as cli_columns
from pipelines.cli import index as cli_index
from pipelines.cli import summary as cli_summary
from pipelines.terminal.console import (
    amount,
    counted,
    err,
    examples,
    first,
    listed,
    out,
    plain,
    show_facts,
    show_json,
    show_remark,
)

if TYPE_CHECKING:
    from indexer.collection import Collection
    from indexer.ingest.check import Report

DEFAULT_MODEL = "open_clip:ViT-B-32/laion2b_s34b_b79k"
"""For a new collection of somebody's own photographs."""

CollectionFolder = Annotated[Path, typer.Argument(metavar="COLLECTION", help="The collection's folder.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="UNDERDRAWING_DATABASE",
        help="PostgreSQL for the metadata; without it, SQLite in the folder.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", help="Where models run: auto (a GPU where there is one), cpu, cuda, cuda:1, mps."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

INDEX_EPILOG = examples(
    "underdrawing index photos/ shop",
    "underdrawing index catalogue.jsonl shop --model open_clip:ViT-L-14/openai --workers 4",
    "underdrawing index 'shards-{000..012}.tar' shop --dtype bfloat16 --rejects rejects.jsonl",
    "# Run it again after a kill or a change: it continues, and embeds only what is new.",
    "underdrawing index photos/ shop --prune",
    "# At the end it builds the index that searches use. To choose its kind:",
    "underdrawing index photos/ shop --index ivf",
)
INFO_EPILOG = examples(
    "underdrawing info shop",
    "underdrawing info shop --json",
    "# Before an index is built: which one, and what it takes.",
    "underdrawing info shop --explain --memory 4GB",
)
DELETE_EPILOG = examples("underdrawing delete shop cats/tom.jpg dogs/rex.jpg")
CHECK_EPILOG = examples(
    "underdrawing check shop",
    "# Drop what is damaged, then bring it back:",
    "underdrawing check shop --repair",
    "underdrawing index photos/ shop",
)
COMPACT_EPILOG = examples("underdrawing compact shop")


def open_existing(folder: Path, database: str | None, **options: Any) -> Collection:
    """The collection in a folder, with other options of `Collection.open`.

    Raises:
        CollectionNotFoundError: There is none; the remedy is the command that makes one.
    """
    layout = Layout.read(folder)
    from indexer.collection import Collection

    return Collection.open(folder, create=False, database=_fitting(layout, database), **options)


def _fitting(layout: Layout, database: str | None) -> str | None:
    """The URL, but not for a collection in SQLite: one set in the environment is there for other collections."""
    if database is None or layout.backend != "sqlite":
        return database
    show_remark(f"{layout.folder} keeps its metadata in SQLite; the database URL is not used.")
    return None


def index(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images and texts; a .jsonl, .json, .csv, .tsv, .parquet or .tar file, a folder of such, "
            "or a pattern.",
        ),
    ],
    collection: CollectionFolder,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help=f"The embedding model, fixed when the collection is made; {DEFAULT_MODEL} by default. "
            "underdrawing doctor --models lists others.",
        ),
    ] = None,
    parts: Annotated[
        Parts | None,
        typer.Option(
            "--parts", help="What of a document is embedded, fixed when the collection is made; auto by default."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="float32 (the default), bfloat16 or float16; fixed when the collection is made.",
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes that decode ahead of the model; 0 uses a thread.")
    ] = 0,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="N", help="Documents per commit; a killed run loses at most these.")
    ] = 2048,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Replace documents of other sources that have the same ids; without it, they are kept."
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete documents that came from SOURCE and are no longer in it, except below what cannot be read.",
        ),
    ] = False,
    prune_most: Annotated[
        float,
        typer.Option(
            "--prune-most",
            metavar="SHARE",
            help="Ask (with --json, stop) before more than this share of SOURCE's documents is pruned.",
        ),
    ] = 0.2,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="N",
            help="Pixels of the largest image to decode, 67108864 by default: a larger JPEG is decoded at reduced "
            "size, any other image is refused. Memory: up to 12 bytes a pixel.",
        ),
    ] = None,
    exif: Annotated[
        bool,
        typer.Option("--exif/--no-exif", help="Store a photograph's date, camera, lens, position and size as fields."),
    ] = True,
    transform: Annotated[
        list[str] | None,
        typer.Option(
            "--transform",
            metavar="NAME",
            help="Change each record first: text-from:FIELD makes its text of a field, fields:JSON drops, renames and "
            "sets fields. Several are applied in turn.",
        ),
    ] = None,
    image_column: cli_columns.Image = None,
    text_column: cli_columns.Text = None,
    id_column: cli_columns.Id = None,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="Write all rejects to FILE, as JSON lines.")
    ] = None,
    memory: cli_index.Memory = None,
    index: cli_index.Kind = None,
    index_device: cli_index.OnDevice = None,
    database: DatabaseUrl = None,
    trust: cli_index.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Index a folder or file into a collection, or continue where the last run stopped.

    Items that cannot be used are listed with their reasons and stop nothing; files of other kinds are counted. Exits
    with 1 if the collection then holds no document of SOURCE.
    """
    from indexer.collection import Collection
    from indexer.corpus.readers import open_corpus
    from indexer.corpus.transforms import load_transform
    from indexer.ingest.job import index_corpus
    from pipelines.terminal.progress import IndexProgress

    settings = cli_index.index_settings(memory, index, index_device)
    columns = cli_columns.columns(image_column, text_column, id_column)
    corpus = open_corpus(source, columns=columns)  # before a collection is started for a source that is not there
    transforms = [load_transform(name) for name in transform or ()]
    if Layout.exists(collection):
        database = _fitting(Layout.read(collection), database)
    elif model is None:
        model = DEFAULT_MODEL
        show_remark(f"A new collection: embedding with {model}, fetched on first use. --model chooses another.")
    try:
        opening = Collection.open(
            collection, model, parts=parts, index=settings, database=database, dtype=dtype, device=device, trust=trust
        )
    except SpaceMismatchError as error:
        error.remedy = f"Leave out --model, or add a second space: underdrawing spaces {collection} add {model}"
        raise
    with opening as opened:
        show_remark(f"Embedding with {opened.embedder.name}{_on_device(opened)}.")
        with IndexProgress(corpus, Path(source)) as progress:
            summary = index_corpus(
                corpus,
                opened,
                workers=workers,
                shard_size=shard_size,
                replace=replace,
                prune=prune,
                prune_most=prune_most,
                confirm=None if as_json else partial(cli_summary.agreed, progress),
                max_pixels=max_pixels,
                exif=exif,
                transforms=transforms,
                on_progress=progress,
                on_index=progress.building,
            )
        built = cli_index.told_index(opened)
        if rejects is not None:
            cli_summary.write_rejects(rejects, cli_summary.all_rejects(opened, summary, shard_size))
    if as_json:
        show_json(cli_summary.summary_json(summary) | {"index": built})
    else:
        cli_summary.show_summary(summary, collection, rejects, cli_index.index_line(built))
    if not summary.found:
        raise typer.Exit(1)


def _on_device(opened: Collection) -> str:
    device = getattr(opened.embedder, "device", None)
    return f" on {device}" if device else ""


def info(
    collection: CollectionFolder,
    explain: cli_index.Explain = False,
    memory: cli_index.Memory = None,
    index: cli_index.Kind = None,
    index_device: cli_index.OnDevice = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what a collection holds, or with --explain how it will be searched."""
    settings = cli_index.index_settings(memory, index, index_device)
    with open_existing(collection, database, index=settings) as opened:
        told = opened.explain() if explain else opened.info()
    if as_json:
        show_json(told)
        return
    if explain:
        cli_index.show_explained(told)
        return
    show_facts({
        "collection": told["path"],
        "documents": f"{told['documents']:,}" + (f" ({listed(told['by_modality'])})" if told["by_modality"] else ""),
        "model": f"{told['model']}, {told['dim']} dimensions, {told['fingerprint']['dtype']}, on {told['device']}",
        "embedded": {"auto": "all parts that a document has"}.get(told["parts"], f"{told['parts']} alone"),
        "generation": f"{told['generation']}, published {told['published']}",
        "index": told["index"],
        "recall@10": cli_index.recall_line(told),
        "vectors": f"{amount(told['vector_bytes'])} in {counted(told['segments'], 'segment')}"
        + (f", {counted(told['tombstones'], 'deleted row')} (compact drops them)" if told["tombstones"] else ""),
        "metadata": told["metadata"],
        "sources": "\n".join(cli_summary.job_line(job) for job in told["jobs"]),
    })  # fmt: skip


def delete(
    collection: CollectionFolder,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The documents' ids.")],
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id. Unknown ids are listed and stop nothing.

    Disk space comes back with compact. Indexing their source again brings the documents back.
    """
    with open_existing(collection, database) as opened:
        known = {each for each in ids if each in opened}
        deleted = opened.delete(ids)
    missing = [each for each in dict.fromkeys(ids) if each not in known]
    if as_json:
        show_json({"deleted": deleted, "missing": missing})
        return
    out.print(f"Deleted {counted(deleted, 'document')}.")
    if missing:
        show_remark(f"Not in the collection: {plain(first(missing, cli_summary.REJECTS_SHOWN))}.")


def check(
    collection: CollectionFolder,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is damaged, so that indexing again brings it back.")
    ] = False,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Verify the checksums and counts of a collection; exits with 1 if answers are affected.

    Reads every vector and image once and changes nothing without --repair.
    """
    done: list[str] = []
    with open_existing(collection, database) as opened:
        report = _checked(opened)
        if repair and report.findings:
            done = opened.repair()
            found, report = report, _checked(opened)
            if not as_json:
                _show_findings(found)
    if as_json:
        show_json({**asdict(report), "clean": report.clean, "repaired": done})
    else:
        for sentence in done:
            out.print(f"repaired: {plain(sentence)}", markup=False, soft_wrap=True)
        _show_findings(report)
        _show_verdict(report, collection)
    if not report.clean:
        raise typer.Exit(1)


def compact(collection: CollectionFolder, database: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Merge a collection's segments and drop what was deleted or replaced.

    Searches may go on meanwhile. A crash loses nothing.
    """
    with open_existing(collection, database) as opened:
        with err.status("Compacting"):
            before, after = opened.compact()
        documents = opened.catalog.generation().documents
    if as_json:
        show_json({"segments_before": before, "segments_after": after, "documents": documents})
    else:
        out.print(f"Compacted {counted(before, 'segment')} into {after}, with {counted(documents, 'document')}.")


def _checked(opened: Collection) -> Report:
    files = 0
    with err.status("Checking") as status:

        def on_file(path: Path) -> None:
            nonlocal files
            files += 1
            # Every file would be too often where they are small: showing costs more than checking.
            if files % 16 == 1:
                status.update(f"Checking: {counted(files, 'file')}")

        return opened.check(on_file)


def _show_findings(report: Report) -> None:
    from rich.text import Text

    for finding in report.findings:
        kind = ("damaged: ", "bold red") if finding.harmful else ("note: ", "yellow")
        out.print(Text.assemble(kind, plain(f"{finding.what}: {finding.problem}")), soft_wrap=True)


def _show_verdict(report: Report, collection: Path) -> None:
    held = f"{counted(report.documents, 'document')} in {counted(report.segments, 'segment')}"
    if report.clean:
        out.print(f"Sound: {held}, generation {report.generation}.")
    else:
        harmful = sum(finding.harmful for finding in report.findings)
        out.print(f"Damaged: {counted(harmful, 'finding')}; {held}, generation {report.generation}.")
        show_remark(f"underdrawing check {collection} --repair drops damaged vectors; indexing again restores them.")
