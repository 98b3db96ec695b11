"""The demo: index the bundled corpus, ask composed questions, measure a sample, write a report.

It uses what any user uses: `Collection`, `index_corpus`, `SearchService`, `evaluate`. A method
whose models are missing is left out, with a note.

What this module does not know: how the page looks (`report.py` and its templates).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from indexer.bundled import CORPUS, QUERIES
from indexer.collection import Collection
from indexer.errors import UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.ingest.job import Summary, index_corpus
from indexer.types import Parts
from pipelines.demo.pages import Answered as PagesAnswered
from pipelines.demo.pages import ask_pages, index_pages
from pipelines.evaluation.emojicir import Split, by_family, read_queries
from pipelines.evaluation.loop import Evaluation, JudgedQuery, evaluate
from pipelines.pages.artifacts import shown_artifacts
from pipelines.pages.report import (
    Card,
    MethodRow,
    PageCard,
    page,
    shown,
    stored_thumbnail,
    thumbnail,
)
from pipelines.terminal.console import hushed_models
from retrieval.methods import Helper, Selective, usable_methods, variant_of
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.request import SearchOptions
from retrieval.results import Results
from retrieval.retriever import STAGES, Retriever
from retrieval.service import SearchService
from underdrawing import __version__

if TYPE_CHECKING:
    from rich.console import Console

MODEL = "bundled:emoji-clip"
NO_JOINT = (
    "The method joint and the pages are left out: no model that reads text and image at once was given. "
    "Name one with --joint, such as bridge:DIR of `underdrawing train bridge`."
)
QUESTIONS_PER_FAMILY = 2
SAMPLE_PER_FAMILY = 40
FETCHED, SHOWN = 10, 7
SHORT, ALL = "report.html", "all.html"
"""The pages: one screen, and everything."""
BEST, QUESTIONS_SHOWN = 5, 3
"""Methods and questions of the short report."""
RANKED_BY = ("R@10", "mAP@10")
"""The measures by which methods are the best, the second among equals."""
WIDE = 110
"""Characters of a terminal that has room for every method; a narrower one shows the best."""
FAR = 1000
"""The rank of a right answer that was not among those fetched."""

Retrievers = dict[str, Retriever]
Fill = Callable[..., Summary]
"""Fills a collection, and tells its progress."""


@dataclass(frozen=True)
class Answered:
    """One question and what each method found."""

    question: JudgedQuery
    results: dict[str, Results]

    def rank(self, method: str) -> int | None:
        """The rank of the first right answer among those fetched."""
        return next((hit.rank for hit in self.results[method].hits if hit.id in self.question.targets), None)


def run_demo(
    out: Path,
    console: Console,
    model: str = MODEL,
    pseudo_targets: PseudoTargetProvider | None = None,
    joint: str | None = None,
) -> Path:
    """Run the whole demo in a folder; what is already indexed and drawn there is kept.

    Args:
        out: Receives `collection/`, `joint/`, `pages/`, `drawings/`, `report.html` and `all.html`.
        console: Where progress and results are printed.
        model: The embedder.
        pseudo_targets: Makes pseudo-words and pseudo-targets; None for what comes with the model.
        joint: An embedder that reads text and image at once, for `joint` and the pages; None leaves both out.

    Returns:
        The path of the short report.
    """
    import pyarrow.parquet as pq

    pseudo_targets = pseudo_targets or PseudoTargetProvider(cache=out / "drawings")
    total = pq.read_metadata(CORPUS).num_rows
    with ExitStack() as stack:
        collection = stack.enter_context(Collection.open(out / "collection", model, parts=Parts.IMAGE))
        summary = _index(partial(index_corpus, CORPUS), collection, "drawings", total, console)
        retrievers, left_out = _retrievers(SearchService(collection, pseudo_targets=pseudo_targets))
        pages: Sequence[PagesAnswered] = ()
        if joint is not None:
            try:
                drawn = stack.enter_context(Collection.open(out / "joint", joint, parts=Parts.IMAGE))
                mixed = stack.enter_context(Collection.open(out / "pages", joint))
            except UnderdrawingError as error:
                left_out.append(f"The method joint is left out: {error}")
            else:
                _index(partial(index_corpus, CORPUS), drawn, "drawings", total, console)
                _index(partial(index_pages, CORPUS), mixed, "pages", None, console)
                retrievers["joint"] = SearchService(drawn).retriever(SearchOptions(method="joint"))
                pages = ask_pages(CORPUS, mixed)
        else:
            left_out.append(NO_JOINT)
        for note in left_out:
            console.print(note, markup=False, style="yellow")
        queries = read_queries(QUERIES, Split.TEST)
        # The questions first, one at a time, so that a drawing's time is told; then the sample, in batches.
        answered = _ask(retrievers, by_family(queries, QUESTIONS_PER_FAMILY), console)
        _print_answers(answered, collection, console)
        measured = _measure(retrievers, by_family(queries, SAMPLE_PER_FAMILY), console)
        _print_measures(measured, console)
        report = out / SHORT
        values = _values(collection, summary, answered, measured, pages, left_out)
        atomic_write(out / ALL, page("demo_all.html.j2", values).encode())
        atomic_write(report, page("demo.html.j2", values | _best(values, answered, measured)).encode())
    console.print(f"\nThe report: [bold]{report}[/bold]")
    return report


def _retrievers(service: SearchService) -> tuple[Retrievers, list[str]]:
    """A retriever for every method whose models load, and notes on the others."""
    retrievers: Retrievers = {}
    left_out = []
    for name, method in usable_methods().items():
        if {Helper.CAPTIONER, Helper.REWRITER} & set(method.needs):
            continue  # its models are the user's choice: none is bundled, and none is fetched for a demo
        if isinstance(method, Selective):
            continue  # another kind of model, with a collection of its own
        if variant_of(method) is not None:
            continue
        options = SearchOptions(method=name)
        try:
            with hushed_models():
                service.load(options)
        except UnderdrawingError as error:
            left_out.append(f"The method {name} is left out: {error}")
        else:
            retrievers[name] = service.retriever(options)
    return retrievers, left_out


def _index(fill: Fill, collection: Collection, what: str, total: int | None, console: Console) -> Summary:
    from rich.progress import Progress

    model = collection.space.model
    if not console.is_terminal:
        console.print(f"Indexing {what} with {model} ...")  # where no bar can be drawn
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"indexing {what} with {model}", total=total)
        summary = fill(
            collection,
            on_progress=lambda now: progress.update(task, completed=now.prepared + now.unchanged + now.rejected),
        )
    if summary.added:
        rate = summary.added / summary.seconds
        console.print(f"Indexed {summary.added:,} {what} in {summary.seconds:.1f} s ({rate:,.0f} a second).")
    else:
        console.print(f"{summary.unchanged:,} {what} were indexed before.")
    return summary


def _ask(retrievers: Retrievers, questions: Sequence[JudgedQuery], console: Console) -> list[Answered]:
    from rich.progress import track

    return [
        Answered(
            question,
            {
                method: retriever.search(question.query, FETCHED, exclude=question.exclude)
                for method, retriever in retrievers.items()
            },
        )
        for question in track(questions, "asking", console=console, transient=True)
    ]


def _measure(retrievers: Retrievers, sample: Sequence[JudgedQuery], console: Console) -> dict[str, Evaluation]:
    from rich.progress import track

    return {
        method: evaluate(sample, retriever)
        for method, retriever in track(list(retrievers.items()), "measuring", console=console, transient=True)
    }


def _print_answers(answered: Sequence[Answered], collection: Collection, console: Console) -> None:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = "Rank of the right answer (– : not among 10)"
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reference and sentence")
    methods = list(answered[0].results)
    if console.width < WIDE:  # else nothing is left for the sentences; the report has all
        gained = {method: sum(1 / (each.rank(method) or FAR) for each in answered) for method in methods}
        best = sorted(methods, key=lambda method: -gained[method])[:BEST]
        methods = [method for method in methods if method in best]
    for method in methods:
        table.add_column(method, justify="right")
    names = _reference_names(collection, answered)
    for each in answered:
        ranks = [each.rank(method) for method in methods]
        cells = ["–" if rank is None else f"[green]{rank}[/green]" if rank == 1 else str(rank) for rank in ranks]
        reference = Text(names[each.question.query_id][0], "dim", no_wrap=True, overflow="ellipsis")
        table.add_row(Group(reference, Text(each.question.query.text or "", "italic")), *cells)
    console.print(table)


def _print_measures(measured: dict[str, Evaluation], console: Console) -> None:
    from rich.table import Table

    queries = next(iter(measured.values())).queries
    table = Table(
        title=f"EmojiCIR test, {queries} queries, percent, macro over families",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("method")
    names = list(next(iter(measured.values())).measures)
    for name in names:
        table.add_column(name, justify="right")
    best = {name: max(found.measures[name].value for found in measured.values()) for name in names}
    for method, found in measured.items():
        values = [(found.measures[name].value, best[name]) for name in names]
        cells = [f"[bold green]{100 * value:.1f}[/]" if value == top else f"{100 * value:.1f}" for value, top in values]
        table.add_row(method, *cells)
    console.print(table)


def _reference_names(collection: Collection, answered: Sequence[Answered]) -> dict[str, tuple[str, str]]:
    """Name and image of each question's reference, by query id."""
    with collection.snapshot() as snapshot:
        likes = [each.question.query.like or "" for each in answered]
        found = snapshot.documents(snapshot.vector_ids(likes))
    return {
        each.question.query_id: (document.text or document.id, stored_thumbnail(document))
        for each, document in zip(answered, found, strict=True)
    }


def _best(values: Mapping[str, Any], answered: Sequence[Answered], measured: dict[str, Evaluation]) -> dict[str, Any]:
    """What the short report shows in place of everything: some questions, and the methods that did best."""
    ranked = sorted(measured, key=lambda method: [-measured[method].measures[name].value for name in RANKED_BY])
    chosen = ranked[:BEST]
    # One question of each of the first families, each with the answers of the best methods, the best first.
    first = {each.question.family: place for place, each in reversed(list(enumerate(answered)))}
    cards = [values["cards"][place] for place in sorted(first.values())[:QUESTIONS_SHOWN]]
    rows = [sorted((row for row in card.rows if row.method in chosen), key=lambda row: chosen.index(row.method))
            for card in cards]  # fmt: skip
    return {
        "cards": [replace(card, rows=own) for card, own in zip(cards, rows, strict=True)],
        "score": {method: found.measures[RANKED_BY[0]].value for method, found in measured.items()},
        "draws": any(each.results[method].pseudo_target for each in answered for method in chosen),
        "questions": len(answered),
        "methods": len(measured),
    }


def _values(
    collection: Collection,
    summary: Summary,
    answered: Sequence[Answered],
    measured: dict[str, Evaluation],
    pages: Sequence[PagesAnswered],
    left_out: Sequence[str],
) -> dict[str, Any]:
    references = _reference_names(collection, answered)
    first = next(iter(measured.values()))
    timings = [
        {
            "method": method,
            "ms": [median(each.results[method].took_ms[stage] for each in answered) for stage in STAGES],
        }
        for method in measured
    ]
    drawn = [told for each in answered for results in each.results.values() if (told := results.pseudo_target)]
    return {
        "short": SHORT,
        "all": ALL,
        "documents": summary.documents,
        "model": collection.space.model,
        "rate": summary.added / summary.seconds if summary.added else 0,
        "query_ms": median(sum(results.took_ms.values()) for each in answered for results in each.results.values()),
        "cards": [_card(each, *references[each.question.query_id]) for each in answered],
        "pages": [_page_card(each) for each in pages],
        "sample": first.queries,
        "families": len(first.families),
        "measures": list(first.measures),
        "table": [{"method": method, "cells": list(found.measures.values())} for method, found in measured.items()],
        "best": [max(found.measures[name].value for found in measured.values()) for name in first.measures],
        "by_family": [
            {
                "name": family,
                "queries": first.counts[family],
                "recalls": [found.families[family]["R@10"] for found in measured.values()],
            }
            for family in first.families
        ],
        "stages": STAGES,
        "timings": timings,
        "draws": bool(drawn),
        "kept": sum(bool(told["cached"]) for told in drawn),
        "left_out": left_out,
        "version": __version__,
    }


def _card(answered: Answered, name: str, image: str) -> Card:
    question = answered.question
    return Card(
        family=question.family,
        sentence=question.query.text or "",
        reference=image,
        reference_name=name,
        rows=[_row(question, method, results, answered.rank(method)) for method, results in answered.results.items()],
    )


def _page_card(answered: PagesAnswered) -> PageCard:
    reference = answered.reference
    return PageCard(
        sentence=answered.question.text or "",
        reference="" if reference is None else thumbnail(reference.image),
        reference_name="" if reference is None else reference.text or reference.id,
        pages=[(stored_thumbnail(hit), hit.text or "", hit.id, hit.score) for hit in answered.hits],
    )


def _row(question: JudgedQuery, method: str, results: Results, rank: int | None) -> MethodRow:
    made = next((each for each in shown_artifacts(results) if each.images), None)
    return MethodRow(
        method,
        [shown(hit, hit.id in question.targets) for hit in results.hits[:SHOWN]],
        rank,
        "" if made is None else thumbnail(made.images[0]),
        "" if made is None else made.how,
    )
