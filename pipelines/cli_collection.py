"""The commands that fill and keep a collection: `index`, `info`, `delete`, `check`, `compact`.

What this module does not know: how any of it is done; `indexer` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer.layout import Layout
from indexer.types import Parts, Rejected
from pipelines import cli_index
from pipelines.console import (
    amount,
    counted,
    duration,
    err,
    examples,
    first,
    listed,
    out,
    plain,
    show_facts,
    show_json,
    show_pairs,
    show_remark,
)

if TYPE_CHECKING:
    from indexer.build import Summary
    from indexer.collection import Collection
    from indexer.maintenance import Report

DEFAULT_MODEL = "open_clip:ViT-B-32/laion2b_s34b_b79k"
"""For a new collection of somebody's own photographs."""

REJECTS_SHOWN = 20

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
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]

INDEX_EPILOG = examples(
    "underdrawing index photos/ shop",
    "underdrawing index catalogue.jsonl shop --model open_clip:ViT-L-14/openai --workers 4",
    "underdrawing index 'shards-{000..012}.tar' shop --dtype bfloat16 --rejects rejects.jsonl",
    "# Run it again after a kill or a change: it continues, and embeds only what is new.",
    "underdrawing index photos/ shop --prune",
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
            help="A folder of images and texts; a .jsonl, .parquet or .tar file, a folder of such, or a pattern.",
        ),
    ],
    collection: CollectionFolder,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help=f"What embeds, fixed at the start. {DEFAULT_MODEL} if not told; "
            "underdrawing doctor --models lists others.",
        ),
    ] = None,
    parts: Annotated[
        Parts | None,
        typer.Option("--parts", help="What of a document is embedded, fixed at the start. auto if not told."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="TYPE", help="float32 (if not told), bfloat16 or float16; fixed at the start."),
    ] = None,
    device: Device = "cpu",
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes that decode ahead of the model; 0 uses a thread.")
    ] = 0,
    shard_size: Annotated[
        int, typer.Option("--shard-size", metavar="N", help="Documents in a commit: what a kill can lose.")
    ] = 2048,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete documents that came from SOURCE and are no longer in it.")
    ] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="N",
            help="Of one image when it is decoded, 67108864 if not told: a larger JPEG is decoded reduced, any other "
            "image is refused. Memory: up to 12 bytes a pixel.",
        ),
    ] = None,
    exif: Annotated[
        bool,
        typer.Option(
            "--exif/--no-exif", help="Whether a photograph's date, camera, lens, position and size become fields."
        ),
    ] = True,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", metavar="FILE", help="Write all rejects to FILE, as JSON lines.")
    ] = None,
    database: DatabaseUrl = None,
    trust: cli_index.Trust = False,
    as_json: AsJson = False,
) -> None:
    """Index a folder or file into a collection, or go on where the last run stopped.

    What cannot be used is listed with its reason, and stops nothing.
    """
    from indexer.build import index_corpus
    from indexer.collection import Collection
    from indexer.corpus.readers import open_corpus
    from pipelines.progress import IndexProgress

    corpus = open_corpus(source)  # before a collection is started for a source that is not there
    if Layout.exists(collection):
        database = _fitting(Layout.read(collection), database)
    elif model is None:
        model = DEFAULT_MODEL
        show_remark(f"A new collection: embedding with {model}, fetched on first use. --model chooses another.")
    with Collection.open(
        collection, model, parts=parts, database=database, dtype=dtype, device=device, trust=trust
    ) as opened:
        with IndexProgress(corpus, Path(source)) as progress:
            summary = index_corpus(
                corpus, opened, workers=workers, shard_size=shard_size, prune=prune,
                max_pixels=max_pixels, exif=exif, on_progress=progress,
            )  # fmt: skip
        if rejects is not None:
            _write_rejects(rejects, _all_rejects(opened, summary, shard_size))
    if as_json:
        show_json(_summary_json(summary))
    else:
        _show_summary(summary, collection, rejects)


def info(
    collection: CollectionFolder,
    explain: cli_index.Explain = False,
    memory: cli_index.Memory = None,
    index: cli_index.Kind = None,
    index_device: cli_index.OnDevice = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say what a collection is and holds, or with --explain how it will be searched."""
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
        "model": f"{told['model']}, {told['dim']} dimensions, {told['fingerprint']['dtype']}",
        "embedded": {"auto": "all parts that a document has"}.get(told["parts"], f"{told['parts']} alone"),
        "generation": f"{told['generation']}, published {told['published']}",
        "index": told["index"]
        + (f" Recall@10 when it was built: {told['recall_at_10']:.3f}." if told["recall_at_10"] is not None else ""),
        "vectors": f"{amount(told['vector_bytes'])} in {counted(told['segments'], 'segment')}"
        + (f", {counted(told['tombstones'], 'deleted row')} (compact drops them)" if told["tombstones"] else ""),
        "metadata": told["metadata"],
        "sources": "\n".join(
            f"{job['source']}: {job['state']}, {counted(job['rejected'], 'reject')}" for job in told["jobs"]
        ),
    })  # fmt: skip


def delete(
    collection: CollectionFolder,
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The documents' ids.")],
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id. Ids that are not there are named and stop nothing.

    Disk space comes back with compact. Indexing their source again brings the documents back.
    """
    with open_existing(collection, database) as opened:
        generation = opened.catalog.generation().number
        known = opened.catalog.known_vector_ids(ids, generation, opened.space_id)
        deleted = opened.delete(ids)
    missing = [each for each in dict.fromkeys(ids) if each not in known]
    if as_json:
        show_json({"deleted": deleted, "missing": missing})
        return
    out.print(f"Deleted {counted(deleted, 'document')}.")
    if missing:
        show_remark(f"Not in the collection: {plain(first(missing, REJECTS_SHOWN))}.")


def check(
    collection: CollectionFolder,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is damaged, so that indexing again brings it back.")
    ] = False,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare a collection with its checksums and counts; exit 1 if answers are affected.

    Reads every vector and image once, and changes nothing without --repair.
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
        out.print(f"{counted(before, 'segment')} became {after}, with {counted(documents, 'document')}.")


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


def _show_summary(summary: Summary, collection: Path, rejects: Path | None) -> None:
    out.print(f"Indexed {plain(summary.source)} in {duration(summary.seconds)}.", markup=False, soft_wrap=True)
    show_facts({
        "added": f"{summary.added:,}",
        "unchanged": f"{summary.unchanged:,}" if summary.unchanged else "",
        "pruned": f"{summary.pruned:,}" if summary.pruned else "",
        "rejected": f"{summary.rejected:,}" + (f" ({listed(summary.reasons)})" if summary.reasons else ""),
        "searchable": f"{counted(summary.documents, 'document')} in {collection}, generation {summary.generation}",
    })  # fmt: skip
    if summary.rejects:
        _show_rejects(summary, rejects)
    if not summary.added and not summary.unchanged and not summary.rejected:
        show_remark("Nothing was found there: no image, text or record.")
    elif summary.documents and out.is_terminal:
        show_remark(f'Next: underdrawing search {collection} "what you look for"')


def _show_rejects(summary: Summary, file: Path | None) -> None:
    out.print("Rejected, with reasons:")
    show_pairs([_reject_row(each) for each in summary.rejects[:REJECTS_SHOWN]], "yellow")
    more = summary.rejected - REJECTS_SHOWN
    if more > 0 and file is None:
        show_remark(f"... and {more:,} more; --rejects FILE writes them all.")
    if file is not None:
        show_remark(f"All of them are in {file}.")


def _reject_row(reject: Rejected) -> tuple[str, str]:
    return reject.reason, f"{plain(reject.uri).removeprefix('file://')}\n{plain(reject.detail)}"


def _summary_json(summary: Summary) -> dict[str, Any]:
    # By hand: `asdict` takes a Counter apart wrongly.
    return {
        "source": summary.source,
        "documents": summary.documents,
        "added": summary.added,
        "unchanged": summary.unchanged,
        "pruned": summary.pruned,
        "rejected": summary.rejected,
        "seconds": round(summary.seconds, 3),
        "waited": round(summary.waited, 3),
        "generation": summary.generation,
        "reasons": dict(summary.reasons),
        "rejects": [asdict(each) for each in summary.rejects],
    }


def _write_rejects(file: Path, rejects: Iterable[Rejected]) -> None:
    from indexer.files import atomic_write

    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in rejects]
    atomic_write(file, "".join(lines).encode("utf-8", "backslashreplace"))


def _all_rejects(opened: Collection, summary: Summary, shard_size: int) -> list[Rejected]:
    """Of the summary where it holds them all, else from the ledger."""
    if len(summary.rejects) == summary.rejected:
        return summary.rejects
    import sys

    from indexer.store.ledger import Ledger

    with opened.writer():
        # There is no other way to a job's rejects: asking for its ledger reopens the job, so close it again.
        ledger = Ledger(opened.database, summary.source, {"shard_size": shard_size})
        rejects = ledger.rejects()
        ledger.finish(sys.maxsize)
    return rejects
