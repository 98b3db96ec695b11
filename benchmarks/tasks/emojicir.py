"""EmojiCIR: composed queries over the bundled emoji corpus.

    python -m benchmarks.emojicir --split test --method sum --json FILE [--run FILE] [--model M] [--limit N]
    python -m benchmarks.emojicir --split test --table       every method, as the markdown table of the README
    python -m benchmarks.emojicir --sweep                    tune the weights on the validation split

Protocol: the gallery is the whole corpus, all vendors and all splits; only pictures are embedded, never names or
keywords; the reference is a stored drawing and is removed from the ranking; the text is the query's sentence as it
stands. Results say all this, and where the weights come from. The last line of standard output is one JSON document.

What this module does not know: how queries are ranked and measured; that is `pipelines/evaluation/loop.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from indexer.bundled import CORPUS, QUERIES
from indexer.collection import Collection
from indexer.embed import load_embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write, file_digest
from indexer.ingest.job import index_corpus
from indexer.types import Parts
from pipelines.evaluation.emojicir import Split, read_queries
from pipelines.evaluation.loop import DEPTH, Evaluation, JudgedQuery, evaluate, sweep, write_run
from retrieval import Merge, Method, Retriever, Scribe, Studio, Weights
from retrieval.methods.weights import FILE as WEIGHTS
from retrieval.providers.pseudo_target import COMPANIONS

PROTOCOL = {
    "gallery": "the whole corpus: all vendors, all splits",
    "embedded": "pictures only",
    "reference": "a stored drawing, removed from the ranking",
    "text": "the query's sentence as it stands",
}
VARIANTS: Mapping[str, tuple[Method, Merge]] = {
    **{method.value: (method, Merge.EMBED) for method in Method if method is not Method.CIG},
    **{f"{Method.CIG}-{merge}": (Method.CIG, merge) for merge in Merge},
}
"""Every method by the name of its weights: `cig` once for each merge. The merge means nothing to the others."""


def grids() -> dict[str, list[Weights]]:
    """What `--sweep` tries, by variant."""
    share = [n / 20 for n in range(21)]
    coarse = [n / 10 for n in range(3, 8)]  # the picture's share beside the sentence's never did best outside
    small = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
    # Of three terms that are added, the shares count alone: they sum to one.
    thirds = [((1 - a) * (1 - b), a * (1 - b), b) for a in coarse for b in small]
    floors = (-0.2, -0.4, -0.8, -1.6, -3.2)
    return {
        "sum": [_weights(image=1 - a, text=a) for a in share],
        "slerp": [_weights(alpha=a) for a in share],
        "shift": [_weights(alpha=n / 4) for n in range(17)],
        "product": [
            _weights(penalty=a, text_floor=b, image_floor=c)
            for a, b, c in itertools.product((0.0, 0.025, 0.05, 0.1), floors, floors)
        ],
        "inversion": [_weights(inversion=1 - a, image=a) for a in share],
        "cig-reinvert": [_weights(inversion=a, image=b, pseudo_target=c) for a, b, c in thirds],
        "cig-embed": [_weights(inversion=a, image=b, pseudo_target=c) for a, b, c in thirds],
        "cig-product": [_weights(inversion=1 - a, image=a, pseudo_target=b) for a in coarse for b in small],
    }


@contextmanager
def gallery(corpus: Path, model: str, folder: Path) -> Iterator[Collection]:
    """The corpus as a collection of pictures, indexed once for each state of model and corpus.

    Args:
        corpus: What is indexed.
        model: The embedder's name.
        folder: Where such collections are kept.
    """
    embedder = load_embedder(model)
    state = f"{embedder.fingerprint().digest}-{file_digest(corpus)[:16]}"
    with Collection.open(folder / state, embedder, parts=Parts.IMAGE) as collection:
        # Passes over what is there; so an indexing that was interrupted is finished.
        summary = index_corpus(corpus, collection)
        if summary.rejected:
            raise CallError(f"{summary.rejected} drawings of {corpus} cannot be indexed.", "See `underdrawing info`.")
        yield collection


def possible(*, inversion: bool, generator: bool, writers: bool, joint: bool) -> list[str]:
    """The variants that can be run with what is there; `writers` are a captioner and a rewriter."""
    lacking = {
        Method.INVERSION: not inversion,
        Method.CIG: not (inversion and generator),
        Method.CAPTION: not writers,
        Method.JOINT: not joint,
    }
    return [name for name, (method, _) in VARIANTS.items() if not lacking.get(method, False)]


def tune(
    collection: Collection, queries: Sequence[JudgedQuery], command: str, studio: Studio, names: Sequence[str]
) -> dict[str, Any]:
    """The best weights of the variants that have any, as entries of `weights.json`."""
    entries = {}
    for name, grid in grids().items():
        if name not in names:
            continue
        method, merge = VARIANTS[name]
        make = partial(Retriever, collection, method, merge=merge, studio=studio)
        curve = sweep(queries, make, grid, progress=sys.stderr.isatty())
        best, score = max(curve, key=lambda pair: pair[1])
        print(f"{name}: {best.given()} at mAP@10 {score:.4f}")
        entries[name] = {
            "weights": best.given() | {"negative": 0.5},
            "source": f"best mAP@10, macro, of {len(curve)} on EmojiCIR validation; negative chosen",
            "split": f"EmojiCIR validation, {len(queries)} queries",
            "metric": "mAP@10, macro over families",
            "command": command,
            "curve": [[weights.given(), round(value, 4)] for weights, value in curve],
        }
    return entries


def write_weights(path: Path, model: str, entries: Mapping[str, Any]) -> None:
    """Replace a model's entries in the file of tuned weights."""
    table = json.loads(path.read_text(encoding="utf-8"))
    table[model] = table.get(model, {}) | entries
    atomic_write(path, _pretty(table).encode())


def describe(
    split: Split, model: str, variant: str, retriever: Retriever, limit: int | None, found: Evaluation
) -> dict[str, Any]:
    """One variant's result with everything that it depends on."""
    used = retriever.weights()
    return {
        "benchmark": "emojicir",
        "split": split.value,
        "limit": limit,
        "method": variant,
        "model": model,
        "weights": used.weights.given(),
        "weights_source": used.source,
        **PROTOCOL,
        "corpus": file_digest(CORPUS)[:16],
        "judgments": file_digest(QUERIES)[:16],
        **found.to_json(),
    }


def markdown(documents: Sequence[Mapping[str, Any]]) -> str:
    """Methods as rows, measures in percent with half the width of their intervals."""
    names = list(documents[0]["measures"])
    lines = ["| method | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for document in documents:
        cells = [
            f"{100 * each['value']:.1f} ± {50 * (each['interval_95'][1] - each['interval_95'][0]):.1f}"
            for each in document["measures"].values()
        ]
        lines.append(f"| `{document['method']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    try:
        document = _main(options)
    except UnderdrawingError as error:
        print(f"emojicir: {error}", file=sys.stderr)
        return error.exit_code
    line = json.dumps(document, separators=(",", ":"))
    if options.json:
        atomic_write(options.json, line.encode() + b"\n")
    print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emojicir", description="Run EmojiCIR.")
    parser.add_argument(
        "--split", choices=[split.value for split in Split], help="default: test, or validation to --sweep"
    )
    parser.add_argument("--method", choices=list(VARIANTS), default=Method.SUM.value)
    parser.add_argument("--model", default="bundled:emoji-clip", help="an embedder's name")
    parser.add_argument("--inversion", metavar="NAME", help="default: the one that comes with the model")
    parser.add_argument("--generator", metavar="NAME", help="the same of the generator")
    parser.add_argument("--captioner", metavar="NAME", help="for caption: as `underdrawing search --captioner`")
    parser.add_argument("--rewriter", metavar="NAME", help="the same of the rewriter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--run", type=Path, metavar="FILE", help="write a TREC run file of 100 documents a query")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N queries, spread evenly over the split")
    parser.add_argument(
        "--data", type=Path, default=cache_folder(), metavar="DIR", help="where the indexed gallery is kept"
    )
    parser.add_argument("--table", action="store_true", help="every method, as a markdown table")
    parser.add_argument("--sweep", action="store_true", help="tune the weights of every method and store them")
    return parser


def _main(options: argparse.Namespace) -> dict[str, Any]:
    split = Split(options.split or (Split.VALIDATION if options.sweep else Split.TEST))
    if options.sweep and split is not Split.VALIDATION:
        raise CallError(f"Weights are tuned on the validation split, not on {split}.")
    if options.limit is not None and options.limit < 1:
        raise CallError(f"--limit is {options.limit}; it must be at least 1.")
    queries = read_queries(QUERIES, split, options.limit)
    comes = options.model in COMPANIONS
    studio = Studio(options.inversion, options.generator, cache=options.data / "drawings")
    # Strict: a sentence that could not be written would be a row of another method.
    scribe = Scribe(options.captioner, options.rewriter, cache=options.data / "sentences", strict=True)
    with gallery(CORPUS, options.model, options.data) as collection:
        names = possible(
            inversion=bool(options.inversion) or comes,
            generator=bool(options.generator) or comes,
            writers=bool(options.captioner and options.rewriter),
            joint=collection.embedder.fuses_natively,
        )
        if options.sweep:
            limit = f" --limit {options.limit}" if options.limit else ""
            command = f"python -m benchmarks.emojicir --sweep --model {options.model}{limit}"
            entries = tune(collection, queries, command, studio, names)
            write_weights(WEIGHTS, options.model, entries)
            return {"model": options.model, **{name: entry["weights"] for name, entry in entries.items()}}
        documents = []
        for name in names if options.table else [options.method]:
            method, merge = VARIANTS[name]
            retriever = Retriever(collection, method, merge=merge, studio=studio, scribe=scribe)
            found = evaluate(queries, retriever, 100 if options.run else DEPTH, progress=sys.stderr.isatty())
            document = describe(split, options.model, name, retriever, options.limit, found)
            if method is Method.CAPTION:
                document |= {"captioner": scribe.captioner().name, "rewriter": scribe.rewriter().name}
            documents.append(document)
            if options.run and name == options.method:
                write_run(options.run, found.rankings, f"{options.model}/{name}")
        if not options.table:
            return documents[0]
        print(markdown(documents))
        return {"benchmark": "emojicir", "results": documents}


def cache_folder() -> Path:
    """Where the indexed gallery and drawings are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "underdrawing" / "emojicir"


def _weights(**point: float) -> Weights:
    """Without the crumbs of binary fractions, which would be stored and shown."""
    return Weights(**{name: round(value, 4) for name, value in point.items()})


def _pretty(table: Mapping[str, Any]) -> str:
    """JSON with a line for each field of an entry: a curve on one line, a change on few."""
    models = []
    for model, methods in table.items():
        entries = []
        for method, entry in methods.items():
            fields = ",\n".join(f"      {json.dumps(name)}: {json.dumps(value)}" for name, value in entry.items())
            entries.append(f"    {json.dumps(method)}: {{\n{fields}\n    }}")
        models.append(f"  {json.dumps(model)}: {{\n" + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(models) + "\n}\n"
