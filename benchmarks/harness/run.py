"""The runner of all benchmarks: index the gallery once, search, measure, and record the protocol.

Each data set's module supplies a `Benchmark` with queries, documents and qrels. Everything else is the same for all:
the public `Retriever` on a collection, the evaluation loop, the result file. The last line of standard output is one
JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import published
from benchmarks.harness.gallery import gallery, images_of
from benchmarks.harness.methods import grids, possible
from benchmarks.harness.options import RUN_DEPTH, Asked, check, parser
from benchmarks.harness.protocol import Protocol
from benchmarks.harness.results import environment, markdown, write_result
from benchmarks.harness.shown import shown
from benchmarks.harness.stored_weights import entry_of, write_weights
from benchmarks.tasks.dataset import BLANK_SENTENCE, Benchmark, DataSet, Task
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.types import Center
from pipelines.evaluation.loop import Evaluation, JudgedQuery, answer, evaluate, sweep, write_run
from pipelines.evaluation.qrels import Average, Plan, Reference
from retrieval import CaptionRewriter, PseudoTargetProvider, Retriever, SearchOptions, SearchService, Weights
from retrieval.methods import Helper, load_method
from retrieval.metrics import mean
from retrieval.providers.companions import has_companions


@dataclass(frozen=True)
class Run:
    """One benchmark run, with everything loaded.

    Attributes:
        benchmark: The benchmark.
        protocol: The chosen protocol.
        task: The queries and documents.
        queries: The task's queries, prepared for the protocol.
        service: Searches the indexed documents.
        embedder: Model of the documents.
        pseudo_targets: Makes pseudo-words and pseudo-targets.
        captions: Captions references and rewrites captions.
        options: The command line's options.
    """

    benchmark: Benchmark
    protocol: Protocol
    task: Task
    queries: Sequence[JudgedQuery]
    service: SearchService
    embedder: Embedder
    pseudo_targets: PseudoTargetProvider
    captions: CaptionRewriter
    options: argparse.Namespace

    @property
    def plan(self) -> Plan:
        """What is measured."""
        return self.benchmark.plan(self.protocol)

    @property
    def blank(self) -> list[str]:
        """Ids of the queries whose caption is blank in the annotations."""
        return [query.query_id for query in self.queries if query.query.text == BLANK_SENTENCE]

    def methods(self) -> list[str]:
        """The variants to run: the requested one, or all that can run."""
        options = self.options
        if options.method is not None and not options.table:
            return [options.method]
        comes = {Helper.INVERSION, Helper.GENERATOR} if has_companions(self.embedder.name) else set()
        return possible(comes | {helper for helper in Helper if getattr(options, helper)}, self.embedder)

    def retriever(self, name: str, center: Center, weights: Weights | None = None) -> Retriever:
        """The retriever of a method."""
        weights = weights or self.options.weights
        return self.service.retriever(SearchOptions(method=name, weights=weights, center=center))

    def described(self, name: str, center: Center) -> dict[str, Any]:
        """Everything that a result depends on."""
        used, needs = self.retriever(name, center).weights(), load_method(name).needs
        source = used.source
        if self.options.weights.given():
            source = f"{source}; tuned on: {self.options.tuned_on or 'not told'}"
        inverting = Helper.INVERSION in needs
        told = {
            "benchmark": self.benchmark.name,
            "split": self.options.split,
            "limit": self.options.limit,
            "blank_captions": self.blank,
            "method": name,
            "model": self.embedder.name,
            "fingerprint": asdict(self.embedder.fingerprint()),
            "inversion": self.options.inversion if inverting else None,
            "template": self.pseudo_targets.template(self.embedder) if inverting else None,
            "generator": self.options.generator if Helper.GENERATOR in needs else None,
            "captioner": self.captions.captioner().name if Helper.CAPTIONER in needs else None,
            "rewriter": self.captions.rewriter().name if Helper.REWRITER in needs else None,
            "weights": used.weights.given(),
            "weights_source": source,
            "protocol": {**self.protocol.to_json(), **self.task.digests},
            "reference_given_as": str(self.options.asked),
            "pictures": len(self.task.documents),
            "environment": environment(str(self.options.device)),
        }
        return told if center is Center.AUTO else {**told, "center": center.value}


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """The command line of a benchmark.

    Args:
        benchmark: The benchmark.
        arguments: Arguments of the command line; None for those of the process.
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
    if options.limit is not None:
        task = benchmark.limited(task, options.limit)
    cache = options.cache / benchmark.name
    images = images_of(task, data, cache / "crops")
    queries = [asked(query, protocol, images if options.asked is Asked.PICTURE else None) for query in task.queries]
    embedder = load_embedder(
        options.model, dtype=options.dtype, device=options.device, preprocessing=protocol.preprocessing
    )
    pseudo_targets = _provider(options, embedder)
    # Strict: a missing sentence would give a row of another method.
    captions = CaptionRewriter(options.captioner, options.rewriter, cache=options.cache / "sentences", strict=True)
    with gallery(benchmark.name, data, task, images, embedder, cache, options.workers) as collection:
        service = SearchService(collection, pseudo_targets=pseudo_targets, captions=captions)
        run = Run(benchmark, protocol, task, queries, service, embedder, pseudo_targets, captions, options)
        if run.blank:
            names = ", ".join(run.blank[:3])
            print(f"{len(run.blank):,} of {len(queries):,} captions are blank, replaced by {BLANK_SENTENCE!r}: {names}",
                  file=sys.stderr)  # fmt: skip
        if options.split in benchmark.hidden:
            return _submitted(run)
        return _tuned(run) if options.sweep else _all_measured(run)


def _all_measured(run: Run) -> dict[str, Any]:
    """The result, or all of them if there are several."""
    options = run.options
    pairs = [(name, center) for name in run.methods() for center in options.centers]
    documents = [_measured(run, name, center) for name, center in pairs]
    if options.results:
        for document in documents:
            write_result(options.results, document)
    if options.table:
        print(markdown(documents))
    return documents[0] if len(pairs) == 1 else {"benchmark": run.benchmark.name, "results": documents}


def _measured(run: Run, name: str, center: Center) -> dict[str, Any]:
    options, retriever = run.options, run.retriever(name, center)
    depth = RUN_DEPTH if options.run else run.plan.depth
    found = evaluate(run.queries, retriever, depth, plan=run.plan, progress=sys.stderr.isatty())
    document = run.described(name, center) | found.to_json()
    document["ms_per_query"] = round(1000 * sum(found.seconds.values()) / found.queries, 3)
    if len(found.families) > 1 and run.protocol.average is Average.QUERIES:
        document["macro"] = _macro(found)
    for field, counts in (("notes", found.notes), ("drawings", found.drawings)):
        if counts:
            document[field] = dict(counts)
    if run.benchmark.beyond is not None:
        document |= run.benchmark.beyond(run.task, found.rankings)
    if options.run and name == options.method:
        write_run(options.run, found.rankings, f"{run.embedder.name}/{name}")
    rows = published.rows_for(run.benchmark.name, options.split, name, run.embedder.name)
    document["published"] = [published.compared(row, document) for row in rows]
    if not options.table:
        print(shown(document, found))
        if document["published"]:
            print(published.told(document["published"]))
    return document


def _tuned(run: Run) -> dict[str, Any]:
    """The best weights on this split, and the whole curve; stored in the package if the benchmark tunes weights."""
    points, [center] = grids(), run.options.centers
    if run.benchmark.tuned_on is None or run.options.method is not None:
        if (name := run.options.method) not in points:
            raise CallError(f"The method {name} has no weights to tune.", f"These have: {', '.join(points)}.")
        names = [name]
    else:
        names = [name for name in points if name in run.methods()]
    found = {name: _swept(run, name, center, points[name]) for name in names}
    if run.benchmark.tuned_on is None:
        [(name, curve)] = found.items()
        told = {
            "measure": run.options.measure,
            "best": _best(curve).given(),
            "value": round(max(value for _, value in curve), 4),
            "curve": [[weights.given(), round(own, 4)] for weights, own in curve],
        }
        return run.described(name, center) | {"queries": len(run.queries), "sweep": told}
    limit = f" --limit {run.options.limit}" if run.options.limit else ""
    command = f"python -m benchmarks.{run.benchmark.name} --sweep --model {run.options.model}{limit}"
    split = f"{run.benchmark.title} {run.options.split}"
    entries = {
        name: entry_of(_best(curve), curve, split, len(run.queries), run.options.measure, command)
        for name, curve in found.items()
    }
    write_weights(run.options.model, entries)
    return {"model": run.options.model, **{name: entry["weights"] for name, entry in entries.items()}}


def _swept(run: Run, name: str, center: Center, points: Sequence[Weights]) -> list[tuple[Weights, float]]:
    measure, progress = run.options.measure, sys.stderr.isatty()
    make = partial(run.retriever, name, center)
    curve = sweep(run.queries, make, points, plan=run.plan, measure=measure, progress=progress)
    best, value = _best(curve), max(value for _, value in curve)
    weights, split = json.dumps(best.given()), run.options.split
    print(f"{name}: {weights} at {measure} {100 * value:.2f}, of {len(curve)} tried on {split}")
    return curve


def _best(curve: Sequence[tuple[Weights, float]]) -> Weights:
    return max(curve, key=lambda pair: pair[1])[0]


def _submitted(run: Run) -> dict[str, Any]:
    """The files for the benchmark's server."""
    options, [center] = run.options, run.options.centers
    name = options.method
    retriever = run.retriever(name, center)
    ranked = answer(run.queries, retriever, run.benchmark.depth, plan=run.plan, progress=sys.stderr.isatty())
    assert run.benchmark.submit is not None
    written = run.benchmark.submit(run.task, ranked, options.submission)
    for path in written:
        print(f"wrote {path}")
    rows = published.rows_for(run.benchmark.name, options.split, name, run.embedder.name)
    if rows:
        print(published.announced(rows))
    return run.described(name, center) | {
        "queries": len(run.queries),
        "submission": [str(path) for path in written],
        "seconds": {stage: round(seconds, 2) for stage, seconds in ranked.seconds.items()},
    }


def asked(query: JudgedQuery, protocol: Protocol, images: Mapping[str, Path] | None) -> JudgedQuery:
    """A query prepared for the protocol.

    Args:
        query: The query of the data set's module.
        protocol: Says whether it may find its reference.
        images: Images of all documents, if the reference is read from its file; None for its stored vector.
    """
    reference = query.query.like
    if reference is None:
        return query
    exclude = (reference,) if protocol.reference is Reference.REMOVED else ()
    own = query.query if images is None else replace(query.query, like=None, image=images[reference])
    return replace(query, query=own, exclude=(*query.exclude, *exclude))


def _macro(found: Evaluation) -> dict[str, float]:
    """The mean of the families' means, if that is not the main number."""
    return {name: round(mean([own[name] for own in found.families.values()]), 4) for name in found.measures}


def _provider(options: argparse.Namespace, embedder: Embedder) -> PseudoTargetProvider:
    """The provider of pseudo-words and pseudo-targets, loaded if the method needs it; `cig` must have a generator."""
    pseudo_targets = PseudoTargetProvider(
        options.inversion,
        options.generator,
        template=options.template,
        cache=options.cache / "drawings",
        device=options.device,
    )
    needs = () if options.method is None else load_method(options.method).needs
    if Helper.INVERSION in needs:
        pseudo_targets.inversion(embedder)
    if Helper.GENERATOR in needs:
        pseudo_targets.generator(embedder)
    return pseudo_targets
