"""Cost and benefit of pseudo-targets, on EmojiCIR's test split.

    python -m benchmarks.speed.compose [--limit N] [--json FILE] [--pictures DIR] [--part NAME ...]

    differences   paired differences between methods, with intervals
    steps         denoising steps, guidance and images: recall, network evaluations, milliseconds
    stages        where the time of a single query goes
    gate          share of queries with a pseudo-target, against recall
    references    the same with references blurred, posterized and redrawn in ink
    families      what pseudo-targets fix and what they break, and images of both

Weights are those in `weights.json`, tuned on the validation split. Pseudo-targets are generated anew wherever time is
measured. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFilter, ImageOps
from PIL.Image import Image

from benchmarks.harness.gallery import gallery
from benchmarks.harness.methods import possible
from benchmarks.harness.options import cache_folder
from benchmarks.speed.pictures import Panel, draw_panels
from benchmarks.tasks import emojicir
from benchmarks.tasks.dataset import DataSet
from indexer.collection import Collection
from indexer.corpus.images import decode_image
from indexer.embed import load_embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from pipelines.evaluation.emojicir import Split, by_family
from pipelines.evaluation.loop import Evaluation, JudgedQuery, evaluate
from retrieval import GenerateOptions, Method, PseudoTargetProvider, Query, Retriever
from retrieval.methods import Helper, load_method
from retrieval.metrics import bootstrap_interval, hit_rate_at, macro_mean
from retrieval.retriever import STAGES

MODEL = "bundled:emoji-clip"
STEPS = (1, 2, 4, 8, 16, 32)
GUIDANCE = (1.0, 2.0)
PAIRS = (
    ("inversion", "sum"), ("inversion", "shift"), ("cig-reinvert", "inversion"), ("cig-embed", "inversion"),
    ("cig-product", "inversion"), ("cig-embed", "shift"),
)  # fmt: skip
DEGRADED: Mapping[str, Callable[[Image], Image]] = {
    "as stored": lambda picture: picture,
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(picture.width / 24)),
    "posterised": lambda picture: ImageOps.posterize(picture, 1),
    "in ink": lambda picture: picture.convert("L").filter(ImageFilter.CONTOUR).convert("RGB"),
}
"""Degradations of a reference: blurred by a twenty-fourth of its width, two tones per channel, outlines alone."""
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Shares of queries that a gate generates pseudo-targets for."""


@dataclass(frozen=True)
class Bench:
    """A gallery and its queries.

    Attributes:
        collection: The gallery.
        queries: All of them.
        corpus: Its documents, with their images.
        data: Where pseudo-targets are cached.
    """

    collection: Collection
    queries: Sequence[JudgedQuery]
    corpus: Path
    data: Path

    def run(
        self,
        variant: str,
        queries: Sequence[JudgedQuery] | None = None,
        options: GenerateOptions | None = None,
        *,
        warm: bool = False,
        **more: Any,
    ) -> Evaluation:
        """Evaluate a variant; `more` goes to the provider and the retriever.

        If times matter, `warm` runs one query first, since each provider loads its models on first use.
        """
        gate = more.pop("gate", None)
        pseudo_targets = PseudoTargetProvider(options=options, cache=self.data / "drawings", **more)
        retriever = Retriever(self.collection, variant, pseudo_targets=pseudo_targets, gate=gate)
        asked = self.queries if queries is None else queries
        if warm:
            retriever.search(asked[0].query, 1)
        return evaluate(asked, retriever, progress=sys.stderr.isatty())

    @cached_property
    def pictures(self) -> Mapping[str, bytes]:
        """The gallery's images, as files, by id."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.corpus, columns=["id", "image"])
        return dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True))

    def picture(self, name: str) -> Image:
        """One drawing."""
        return decode_image(self.pictures[name])

    @cached_property
    def cig(self) -> str:
        """The default merge of `cig`."""
        return load_method(Method.CIG).tuned

    @cached_property
    def plain(self) -> dict[str, Evaluation]:
        """Every variant that needs no other models, with default settings."""
        names = possible((Helper.INVERSION, Helper.GENERATOR), self.collection.embedder)
        return {name: self.run(name) for name in names}


def hits(found: Evaluation, queries: Sequence[JudgedQuery], k: int) -> list[float]:
    """1 or 0 for each query: whether a target is in the top k."""
    return [hit_rate_at(found.rankings[query.query_id].ids, query.targets, k) for query in queries]


def differences(bench: Bench) -> list[dict[str, Any]]:
    """The difference between two variants, in points, macro over families, paired by query."""
    rows: list[dict[str, Any]] = []
    groups = [query.family for query in bench.queries]
    for better, worse in PAIRS:
        row: dict[str, Any] = {"of": better, "over": worse}
        for k in (1, 10):
            one, other = (hits(bench.plain[name], bench.queries, k) for name in (better, worse))
            gained = [a - b for a, b in zip(one, other, strict=True)]
            low, high = bootstrap_interval(gained, groups)
            row[f"R@{k}"] = {"points": _points(_macro(gained, groups)), "interval_95": [_points(low), _points(high)]}
        rows.append(row)
    return rows


def steps(bench: Bench) -> list[dict[str, Any]]:
    """Recall and cost by number of steps, with and without guidance, and with four images."""
    asked = [GenerateOptions(steps=n, guidance=g) for g in GUIDANCE for n in STEPS]
    asked += [GenerateOptions(steps=n, guidance=1.0, images=4) for n in (2, 8)]
    base = bench.run("inversion", warm=True)
    rows = []
    for options in asked:
        assert options.steps is not None
        found = bench.run(bench.cig, options=options, regenerate=True, warm=True)
        guided = options.guidance is not None and options.guidance > 1
        rows.append({
            "steps": options.steps,
            "guidance": options.guidance,
            "images": options.images,
            "evaluations": options.steps * (1 + guided) * options.images,
            "ms_per_query": round(1000 * (found.seconds["encode"] - base.seconds["encode"]) / found.queries, 1),
            **_recalls(found),
        })  # fmt: skip
    return rows


def stages(bench: Bench, count: int = 40) -> dict[str, Any]:
    """Median milliseconds of each stage, one query at a time, the models loaded."""
    told: dict[str, Any] = {}
    for name in ("sum", "inversion", bench.cig):
        pseudo_targets = PseudoTargetProvider(cache=bench.data / "drawings", regenerate=True)
        retriever = Retriever(bench.collection, name, pseudo_targets=pseudo_targets)
        chosen = bench.queries[:: max(1, len(bench.queries) // count)][: count + 1]
        took = [retriever.search(query.query, 10).took_ms for query in chosen][1:]  # the first query loads models
        told[name] = {stage: round(statistics.median(each[stage] for each in took), 2) for stage in STAGES}
    return told


def gate(bench: Bench) -> list[dict[str, Any]]:
    """Recall if only the least certain share of queries gets a pseudo-target."""
    plain = bench.run(bench.cig, gate=0.0)
    margins = [found.scores[0] - found.scores[1] for found in plain.rankings.values()]
    rows = []
    for share in SHARES:
        # Beyond the ends, so that rounding still passes none or all of them.
        edge = {0.0: 0.0, 1.0: float("inf")}.get(share, float(np.quantile(margins, share)))
        found = plain if share == 0 else bench.run(bench.cig, gate=edge)
        rows.append({"share": share, "gate": None if edge == float("inf") else round(edge, 4), **_recalls(found)})
    return rows


def references(bench: Bench) -> list[dict[str, Any]]:
    """Recall if the reference is a degraded copy of the stored image, by method."""
    rows = []
    for label, degrade in DEGRADED.items():
        queries = [
            replace(query, query=Query(text=query.query.text, image=degrade(bench.picture(str(query.query.like)))))
            for query in bench.queries
        ]
        row: dict[str, Any] = {"reference": label}
        for name in ("sum", "shift", "inversion", bench.cig):
            row[name] = _recalls(bench.run(name, queries))
        rows.append(row)
    return rows


def families(bench: Bench) -> list[dict[str, Any]]:
    """By family, how many queries a pseudo-target makes right at rank 1, and how many it makes wrong."""
    before, after = (hits(bench.plain[name], bench.queries, 1) for name in ("inversion", bench.cig))
    rows = []
    for family in dict.fromkeys(query.family for query in bench.queries):
        places = [n for n, query in enumerate(bench.queries) if query.family == family]
        rows.append({
            "family": family,
            "queries": len(places),
            "fixed": sum(before[n] < after[n] for n in places),
            "broken": sum(before[n] > after[n] for n in places),
            **{
                f"{name} R@{k}": _points(bench.plain[name].families[family][f"R@{k}"])
                for k in (1, 10)
                for name in ("sum", "inversion", bench.cig)
            },
        })  # fmt: skip
    return rows


def write_images(bench: Bench, folder: Path) -> None:
    """Write `pseudo-targets.png`, evenly chosen, and `fixed-and-broken.png`, where a pseudo-target changed anything."""
    before, after = (hits(bench.plain[name], bench.queries, 1) for name in ("inversion", bench.cig))
    rng = np.random.default_rng(0)
    fixed = [query for query, a, b in zip(bench.queries, before, after, strict=True) if b > a]
    broken = [query for query, a, b in zip(bench.queries, before, after, strict=True) if a > b]
    some = [by_family([own[n] for n in rng.permutation(len(own))], 1)[:8] for own in (fixed, broken)]
    shown = by_family(list(bench.queries), 3)
    for name, groups in (
        ("pseudo-targets.png", {"": shown}),
        ("fixed-and-broken.png", {"fixed": some[0], "broken": some[1]}),
    ):
        panels = [_panel(bench, query, label) for label, own in groups.items() for query in own]
        if panels:
            draw_panels(panels, folder / name, columns=3)


def _panel(bench: Bench, query: JudgedQuery, label: str) -> Panel:
    pseudo_targets = PseudoTargetProvider(cache=bench.data / "drawings")
    found = Retriever(bench.collection, bench.cig, pseudo_targets=pseudo_targets).search(query.query, 1)
    about = found.pseudo_target or {}
    shown = {"reference": bench.picture(str(query.query.like))}
    if "path" in about:
        shown["drawn"] = decode_image(Path(str(about["path"])))
    if label:
        shown["inversion"] = bench.picture(bench.plain["inversion"].rankings[query.query_id].ids[0])
        shown["cig"] = bench.picture(bench.plain[bench.cig].rankings[query.query_id].ids[0])
    else:
        shown["found"] = bench.picture(found.hits[0].id)
    shown["target"] = bench.picture(query.targets[0])
    return Panel(" ".join([*([f"{label}:"] if label else []), str(query.query.text)]), shown)


@contextmanager
def opened(limit: int | None, folder: Path) -> Iterator[Bench]:
    """EmojiCIR's test split, ready to run.

    Args:
        limit: Limit of queries.
        folder: Where the gallery and pseudo-targets are stored.
    """
    benchmark = emojicir.BENCHMARK
    data = DataSet(benchmark.title, Path(), benchmark.home)
    task = benchmark.task(data, Split.TEST.value, benchmark.choices.default)
    task = task if limit is None else benchmark.limited(task, limit)
    with gallery(benchmark.name, data, task, {}, load_embedder(MODEL), folder) as collection:
        assert isinstance(task.corpus, Path)
        yield Bench(collection, task.queries, task.corpus, folder)


PARTS: Mapping[str, Callable[[Bench], Any]] = {
    "differences": differences,
    "steps": steps,
    "stages": stages,
    "gate": gate,
    "references": references,
    "families": families,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.compose", description="Measure pseudo-targets.")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N queries, spread evenly over the split")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE, keeping its other parts")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write images of fixed and broken queries to DIR")
    parser.add_argument(
        "--data", type=Path, default=cache_folder(), metavar="DIR", help="for the gallery and pseudo-targets"
    )
    options = parser.parse_args(arguments)
    try:
        told = _measured(options)
    except UnderdrawingError as error:
        print(f"speed_compose: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, separators=(",", ":")))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if options.limit is not None and options.limit < 1:
        raise CallError(f"--limit is {options.limit}; it must be at least 1.")
    told: dict[str, Any] = {}
    if options.json and options.json.exists():
        told = json.loads(options.json.read_text(encoding="utf-8"))
    with opened(options.limit, options.data) as bench:
        for name in options.part:
            told[name] = {"queries": len(bench.queries), "cig": bench.cig, "rows": PARTS[name](bench)}
            if options.json:
                atomic_write(options.json, json.dumps(told, indent=1).encode() + b"\n")
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            write_images(bench, options.pictures)
    return told


def _recalls(found: Evaluation) -> dict[str, float]:
    return {name: _points(found.measures[name].value) for name in ("R@1", "R@10", "mAP@10")}


def _macro(values: Sequence[float], groups: Sequence[str]) -> float:
    by_group: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    return macro_mean(by_group)


def _points(value: float) -> float:
    return round(100 * value, 2)


if __name__ == "__main__":
    raise SystemExit(main())
