"""The one runner of the published benchmarks: index the gallery once, ask, measure, and say by which protocol.

Each data set's module supplies a `Benchmark`; queries, pictures and judgments come from there, and all else is the same
for all: the public `Retriever` on a collection, the evaluation loop, the result file. The last line of
standard output is one JSON document.

What this module does not know: any data set, how queries are ranked and measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import published
from benchmarks.harness.gallery import gallery, located
from benchmarks.harness.options import RUN_DEPTH, Asked, check, parser
from benchmarks.harness.protocol import MEANINGS, Protocol
from benchmarks.tasks.dataset import BLANK_SENTENCE, Benchmark, DataSet, Task
from benchmarks.tasks.emojicir import VARIANTS, grids
from indexer.collection import Collection
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from pipelines.evaluation.loop import Evaluation, JudgedQuery, answer, evaluate, sweep, write_run
from pipelines.evaluation.qrels import Average, Plan, Reference
from retrieval import Method, Retriever, Scribe, Studio, Weights
from retrieval.metrics import mean

WORDED = (Method.INVERSION, Method.CIG)
FAMILIES_SHOWN = 12


@dataclass(frozen=True)
class Run:
    """One call, with everything loaded.

    Attributes:
        benchmark: Which.
        split: Of it.
        protocol: What was chosen.
        task: The queries and pictures.
        queries: Those that are asked, as they are asked.
        collection: The pictures, indexed.
        embedder: Its model.
        studio: Makes words and drawings.
        scribe: Writes sentences.
        options: The call's options.
    """

    benchmark: Benchmark
    split: str
    protocol: Protocol
    task: Task
    queries: Sequence[JudgedQuery]
    collection: Collection
    embedder: Embedder
    studio: Studio
    scribe: Scribe
    options: argparse.Namespace

    @property
    def plan(self) -> Plan:
        """What is measured."""
        return self.benchmark.plan(self.protocol)

    @property
    def blank(self) -> list[str]:
        """Ids of the queries whose caption is blank in the annotations."""
        return [query.query_id for query in self.queries if query.query.text == BLANK_SENTENCE]

    def retriever(self, weights: Weights | None = None) -> Retriever:
        """What answers."""
        method, merge = VARIANTS[self.options.method]
        return Retriever(
            self.collection,
            method,
            weights or self.options.weights,
            merge=merge,
            studio=self.studio,
            scribe=self.scribe,
        )

    def described(self, retriever: Retriever) -> dict[str, Any]:
        """All that a result depends on."""
        used, method = retriever.weights(), VARIANTS[self.options.method][0]
        worded = method in WORDED
        source = used.source
        if self.options.weights.given():
            source = f"{source}; tuned on: {self.options.tuned_on or 'not told'}"
        return {
            "benchmark": self.benchmark.name,
            "split": self.split,
            "limit": self.options.limit,
            "blank_captions": self.blank,
            "method": self.options.method,
            "model": self.embedder.name,
            "fingerprint": asdict(self.embedder.fingerprint()),
            "inversion": self.options.inversion if worded else None,
            "template": self.studio.template(self.embedder) if worded else None,
            "generator": self.options.generator if method is Method.CIG else None,
            "captioner": self.options.captioner if method is Method.CAPTION else None,
            "rewriter": self.options.rewriter if method is Method.CAPTION else None,
            "weights": used.weights.given(),
            "weights_source": source,
            "protocol": self.protocol.to_json(),
            "reference_given_as": str(self.options.asked),
            "pictures": len(self.task.pictures),
        }


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """The command line of a benchmark.

    Args:
        benchmark: Which.
        arguments: Of the command line; None for those of the process.
    """
    options = parser(benchmark).parse_args(arguments)
    if options.protocol:
        print(benchmark.choices.told())
        return 0
    try:
        document = _main(benchmark, options)
        line = json.dumps(document, separators=(",", ":"))
        if options.json:
            atomic_write(options.json, line.encode() + b"\n")
    except UnderdrawingError as error:
        print(f"{benchmark.name}: {error}", file=sys.stderr)
        return error.exit_code
    print(line)
    return 0


def _main(benchmark: Benchmark, options: argparse.Namespace) -> dict[str, Any]:
    protocol = benchmark.choices.with_given({field.name: getattr(options, field.name) for field in fields(Protocol)})
    check(benchmark, options)
    data = DataSet(benchmark.title, options.data, benchmark.home)
    task = benchmark.task(data, options.split, protocol)
    cache = options.cache / benchmark.name
    files = located(task, data, cache / "crops")
    queries = [asked(query, protocol, files if options.asked is Asked.PICTURE else None) for query in task.queries]
    if options.limit is not None:
        queries = spread(queries, options.limit)
    embedder = load_embedder(
        options.model, dtype=options.dtype, device=options.device, preprocessing=protocol.preprocessing
    )
    studio = _studio(options, embedder)
    # Strict: a sentence that could not be written would make a row of another method.
    scribe = Scribe(options.captioner, options.rewriter, cache=options.cache / "sentences", strict=True)
    with gallery(benchmark.name, data, files, embedder, cache, options.workers) as collection:
        run = Run(benchmark, options.split, protocol, task, queries, collection, embedder, studio, scribe, options)
        if run.blank:
            names = ", ".join(run.blank[:3])
            print(f"{len(run.blank):,} of {len(queries):,} captions are blank and asked as {BLANK_SENTENCE!r}: {names}",
                  file=sys.stderr)  # fmt: skip
        if options.split in benchmark.hidden:
            return _submitted(run)
        return _tuned(run) if options.sweep else _measured(run)


def _measured(run: Run) -> dict[str, Any]:
    options, retriever = run.options, run.retriever()
    depth = RUN_DEPTH if options.run else run.plan.depth
    found = evaluate(run.queries, retriever, depth, plan=run.plan, progress=sys.stderr.isatty())
    document = run.described(retriever) | found.to_json()
    document["ms_per_query"] = round(1000 * sum(found.seconds.values()) / found.queries, 3)
    if len(found.families) > 1 and run.protocol.average is Average.QUERIES:
        document["macro"] = _macro(found)
    for name, counts in (("notes", found.notes), ("drawings", found.drawings)):
        if counts:
            document[name] = dict(counts)
    if options.run:
        write_run(options.run, found.rankings, f"{run.embedder.name}/{options.method}")
    rows = published.rows_for(run.benchmark.name, run.split, options.method, run.embedder.name)
    document["published"] = [published.compared(row, document) for row in rows]
    print(shown(document, found))
    if document["published"]:
        print(published.told(document["published"]))
    return document


def _tuned(run: Run) -> dict[str, Any]:
    """The best weights on this split, and the whole curve."""
    options = run.options
    name = options.method
    if name not in (points := grids()):
        raise CallError(f"The method {name} has no weights to tune.", f"These have: {', '.join(points)}.")
    measure = options.measure or run.benchmark.main
    progress = sys.stderr.isatty()
    curve = sweep(run.queries, run.retriever, points[name], plan=run.plan, measure=measure, progress=progress)
    best, value = max(curve, key=lambda pair: pair[1])
    print(f"{name}: {json.dumps(best.given())} at {measure} {100 * value:.2f}, of {len(curve)} tried on {run.split}")
    return run.described(run.retriever()) | {
        "queries": len(run.queries),
        "sweep": {
            "measure": measure,
            "best": best.given(),
            "value": round(value, 4),
            "curve": [[weights.given(), round(own, 4)] for weights, own in curve],
        },
    }


def _submitted(run: Run) -> dict[str, Any]:
    """Files for the benchmark's server."""
    options, retriever = run.options, run.retriever()
    ranked = answer(run.queries, retriever, run.benchmark.depth, plan=run.plan, progress=sys.stderr.isatty())
    assert run.benchmark.submit is not None
    written = run.benchmark.submit(run.task, ranked, options.submission)
    for path in written:
        print(f"wrote {path}")
    rows = published.rows_for(run.benchmark.name, run.split, options.method, run.embedder.name)
    if rows:
        print(published.announced(rows))
    return run.described(retriever) | {
        "queries": len(run.queries),
        "submission": [str(path) for path in written],
        "seconds": {stage: round(seconds, 2) for stage, seconds in ranked.seconds.items()},
    }


def asked(query: JudgedQuery, protocol: Protocol, files: Mapping[str, Path] | None) -> JudgedQuery:
    """A query as the protocol has it.

    Args:
        query: As the data set's module made it.
        protocol: Says whether it may find its reference.
        files: Of all pictures, where the reference is to be read from its file; None for its stored vector.
    """
    reference = query.query.like
    assert reference is not None
    exclude = (reference,) if protocol.reference is Reference.REMOVED else ()
    own = query.query if files is None else replace(query.query, like=None, image=files[reference])
    return replace(query, query=own, exclude=(*query.exclude, *exclude))


def spread(queries: Sequence[JudgedQuery], limit: int) -> list[JudgedQuery]:
    """At most so many queries, spread evenly over all."""
    count = min(limit, len(queries))
    return [queries[place * len(queries) // count] for place in range(count)]


def shown(document: Mapping[str, Any], found: Evaluation) -> str:
    """A result for people: what was run by which protocol, and a table of measures in percent."""
    lines = [
        f"{document['benchmark']} {document['split']}: {found.queries:,} queries, {document['pictures']:,} pictures, "
        f"{document['method']}, {document['model']}",
        f"weights: {json.dumps(document['weights'])} ({document['weights_source']})",
    ]
    if document["template"]:
        lines.append(f"template: {document['template']}")
    for field, choice in document["protocol"].items():
        lines.append(f"{field.replace('_', ' ')}: {choice}: {_meaning(field, choice)}")
    names = list(found.measures)
    lines += ["", "| | queries | " + " | ".join(names) + " |", "| --- | ---: |" + " ---: |" * len(names)]
    rows: list[tuple[str, float, Mapping[str, float]]] = [
        ("all", found.queries, {name: each.value for name, each in found.measures.items()})
    ]
    if "macro" in document:
        rows.append(("mean of families", found.queries, document["macro"]))
    if 1 < len(found.families) <= FAMILIES_SHOWN:
        rows += [(family, found.counts[family], own) for family, own in found.families.items()]
    rows += [(aspect, own["queries"], own) for aspect, own in found.aspects.items()]
    for label, count, own in rows:
        lines.append(f"| {label} | {count:,} | " + " | ".join(f"{100 * own[name]:.2f}" for name in names) + " |")
    return "\n".join(lines)


def _macro(found: Evaluation) -> dict[str, float]:
    """The mean of the families' means, where the one number is another."""
    return {name: round(mean([own[name] for own in found.families.values()]), 4) for name in found.measures}


def _meaning(field: str, value: str) -> str:
    return next(text for choice, text in MEANINGS[field].items() if choice == value)


def _studio(options: argparse.Namespace, embedder: Embedder) -> Studio:
    """What makes words and drawings, loaded where the method needs it: no run of `cig` goes on without drawings."""
    studio = Studio(
        options.inversion,
        options.generator,
        template=options.template,
        cache=options.cache / "drawings",
        device=options.device,
    )
    method = VARIANTS[options.method][0]
    if method in WORDED:
        studio.inversion(embedder)
    if method is Method.CIG:
        studio.generator(embedder)
    return studio
