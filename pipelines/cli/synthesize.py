"""The command `synthesize`: a corpus and a language model in, training records of picture and text out.

What this module does not know: how anything is asked, found, drawn or judged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.errors import CallError
from pipelines.terminal.console import duration, err, examples, listed, out, show_facts, show_json, show_remark

if TYPE_CHECKING:
    from pipelines.synthesis.job import Synthesis, Told
    from pipelines.synthesis.recipe import SynthesisRecipe
    from retrieval.providers.pseudo_target import PseudoTargetProvider

ASKING, FINDING, CHECKING = "Asking", "Pictures and answers", "Filters"
LINE_EVERY = 30.0
"""Seconds between the lines of a log."""

EPILOG = examples(
    "underdrawing synthesize captions.parquet --out made --writer Qwen/Qwen2.5-1.5B-Instruct --limit 1000",
    "underdrawing synthesize pages.jsonl --out made --writer api:gpt-4o-mini --finds text --finds fused",
    "# A model in one file; passages of several fields; a part of the corpus:",
    'underdrawing synthesize captions.parquet --out made --writer model.gguf --passage "{text}: {keywords}" '
    "--split-field split",
    "# Train with it:",
    "underdrawing train unified captions.parquet --out runs/unified --synthesised made/records.jsonl",
)


def synthesize(
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS", help="Texts and images: a folder, .jsonl, .parquet or .tar file.")
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder. A run in it is continued.")],
    writer: Annotated[
        str,
        typer.Option(
            "--writer",
            metavar="NAME|DIR|FILE.gguf|api:MODEL@URL",
            help="The language model: a chat model of transformers, a GGUF file, or an endpoint that speaks OpenAI's "
            "protocol.",
            rich_help_panel=ASKING,
        ),
    ],
    passage: Annotated[
        str,
        typer.Option(
            "--passage",
            metavar="TEMPLATE",
            help="What it reads of a document, with its fields in braces.",
            rich_help_panel=ASKING,
        ),
    ] = "{text}",
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="DIR",
            help="Your own question.txt, rewrite.txt and deictic.txt.",
            rich_help_panel=ASKING,
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            "--tokens", metavar="N", help="A local model's answer has at most so many tokens.", rich_help_panel=ASKING
        ),
    ] = 128,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="Of a local model: float32 on a CPU and bfloat16 elsewhere, if not told.",
            rich_help_panel=ASKING,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="So many passages, drawn by the seed.")
    ] = None,
    split_field: Annotated[
        str | None, typer.Option("--split-field", metavar="NAME", help="The field that names a document's part.")
    ] = None,
    part: Annotated[
        str, typer.Option("--part", metavar="NAME", help="The part to use, where there are parts.")
    ] = "train",
    finds: Annotated[
        list[str] | None,
        typer.Option(
            "--finds",
            metavar="NAME",
            help="What a query should find: text (if not told), image or fused; several are drawn from.",
            rich_help_panel=FINDING,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Finds the picture of a thing, and says how alike they are.",
            rich_help_panel=FINDING,
        ),
    ] = "bundled:emoji-clip",
    pictures: Annotated[
        str,
        typer.Option(
            "--pictures",
            metavar="NAME",
            help="found: the corpus's own. drawn: new ones, by the generator.",
            rich_help_panel=FINDING,
        ),
    ] = "found",
    inversion: Annotated[
        str | None,
        typer.Option(
            "--inversion",
            metavar="NAME|DIR|FILE",
            help="For --pictures drawn. If not told: the model's.",
            rich_help_panel=FINDING,
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator",
            metavar="NAME|DIR",
            help="For --pictures drawn. If not told: the model's.",
            rich_help_panel=FINDING,
        ),
    ] = None,
    retriever: Annotated[
        str | None,
        typer.Option(
            "--retriever",
            metavar="MODEL",
            help="By which a question must find its passage. If not told: --model.",
            rich_help_panel=CHECKING,
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            "--top",
            metavar="N",
            help="A question must find its passage among so many passages, the nearest ones.",
            rich_help_panel=CHECKING,
        ),
    ] = 20,
    least: Annotated[
        float,
        typer.Option("--least", metavar="X", help="The least cosine of picture and thing.", rich_help_panel=CHECKING),
    ] = 0.2,
    least_corrected: Annotated[
        float | None,
        typer.Option(
            "--least-corrected",
            metavar="X",
            help="The least of it less what either has in common with anything.",
            rich_help_panel=CHECKING,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make training data of picture and text together: a picture, a question about it, and what answers it.

    A language model writes a question that a text answers, then puts "this one" in the place of the thing that the
    question names; a picture of the thing is found in the corpus, or drawn. What does not hold is dropped, and counted.

    Run the same command again to continue: nothing is asked twice. DIR/sheet.html shows samples.
    """  # fmt: skip
    from indexer.corpus.readers import open_corpus
    from pipelines.synthesis.job import synthesize as run
    from pipelines.synthesis.recipe import Pictures, SynthesisRecipe
    from pipelines.train.unified.synthesised import Finds
    from retrieval.providers.language import load_chat

    recipe = SynthesisRecipe(
        passage=passage,
        split_field=split_field,
        part=part,
        limit=limit,
        seed=seed,
        prompts=prompts,
        tokens=tokens,
        model=model,
        retriever=retriever,
        top=top,
        pictures=Pictures(pictures),
        least=least,
        least_corrected=least_corrected,
        finds=tuple(Finds(each) for each in finds or ["text"]),
        device=device,
        dtype=dtype,
    )
    pseudo_targets = _pseudo_targets(recipe, inversion, generator, folder)
    opened = open_corpus(corpus)
    with err.status("Loading"):
        chat = load_chat(writer, device=device, dtype=dtype)
    started = time.monotonic()
    with _progress() as told:
        found = run(opened, chat, recipe, folder, pseudo_targets=pseudo_targets, on_progress=told)
    if as_json:
        show_json(found.to_json())
    else:
        _show(found, folder, time.monotonic() - started)


def _pseudo_targets(
    recipe: SynthesisRecipe, inversion: str | None, generator: str | None, folder: Path
) -> PseudoTargetProvider | None:
    """What draws, if anything should.

    Raises:
        CallError: An option about drawing, where nothing is drawn.
    """
    from pipelines.synthesis.recipe import Pictures

    if recipe.pictures is Pictures.FOUND:
        for option, value in (("--inversion", inversion), ("--generator", generator)):
            if value is not None:
                raise CallError(f"{option} is for pictures that are drawn.", "Leave it out, or add --pictures drawn.")
        return None
    from retrieval.providers.generation.protocol import GenerateOptions
    from retrieval.providers.pseudo_target import PseudoTargetProvider

    options = GenerateOptions(seed=recipe.seed)
    return PseudoTargetProvider(inversion, generator, options, cache=folder / "drawings", device=recipe.device)


def _show(found: Synthesis, folder: Path, seconds: float) -> None:
    from pipelines.synthesis.job import RECORDS, SHEET

    kept, asked = len(found.kept), len(found.outcomes)
    out.print(f"{kept:,} records from {asked:,} passages in {duration(seconds)}", markup=False)
    show_facts({
        "records": str(folder / RECORDS),
        "sheet": str(folder / SHEET),
        "dropped": listed(found.dropped),
        "no passage": listed(found.skipped),
    })  # fmt: skip
    if kept:
        show_remark(f"Next: underdrawing train unified CORPUS --out DIR --synthesised {folder / RECORDS}")


@contextmanager
def _progress() -> Iterator[Told]:
    """A bar in a terminal, and in a log a line each half minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    bar = Progress(*columns, console=err, transient=True, refresh_per_second=4)
    task = bar.add_task("synthesize", total=None, state="indexing")
    last = time.monotonic()

    def told(done: int, of: int, dropped: Mapping[str, int]) -> None:
        nonlocal last
        state = f"{done - sum(dropped.values()):,} kept"
        bar.update(task, completed=done, total=of, state=state)
        if not err.is_terminal and time.monotonic() - last >= LINE_EVERY:
            last = time.monotonic()
            err.print(f"{done:,} of {of:,} passages · {state}", soft_wrap=True)

    if err.is_terminal:
        bar.start()
    try:
        yield told
    finally:
        if err.is_terminal:
            bar.stop()
