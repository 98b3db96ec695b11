"""The command line of a benchmark, and the checks made before any work is done."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path

from benchmarks.harness.protocol import Protocol
from benchmarks.tasks.dataset import Benchmark
from indexer.embed.base import Dtype
from indexer.errors import CallError
from indexer.types import Center, HelpfulEnum
from retrieval import Method, Weights
from retrieval.methods import METHODS, load_method
from retrieval.providers.generation.presets import PRESETS

RUN_DEPTH = 100


class Asked(HelpfulEnum):
    """How the model gets the reference: as its stored vector, or as the image, read again for each query.

    The stored vector is what the gallery was indexed with, so a sweep over methods embeds nothing twice. Methods that
    read the image itself, such as those of multimodal language models, need the image.
    """

    STORED = "stored"
    PICTURE = "picture"


def parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    """The options of a benchmark."""
    where = f"Expected in DIR: {benchmark.layout}. Get it from {benchmark.home}. Nothing is downloaded."
    made = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=f"python -m benchmarks.{benchmark.name}",
        description=f"Run {benchmark.title}. {where if benchmark.home else benchmark.layout}",
    )
    if benchmark.home:
        made.add_argument("--data", type=Path, default=Path("data") / benchmark.name, metavar="DIR",
                            help=f"the data set's folder; default: data/{benchmark.name}")  # fmt: skip
    else:
        made.set_defaults(data=Path())  # the data set is bundled, and --data has always been the cache
    names = ["--cache"] if benchmark.home else ["--data", "--cache"]
    made.add_argument(*names, dest="cache", type=Path, default=cache_folder(), metavar="DIR",
                        help="folder of indexed galleries and pseudo-targets")  # fmt: skip
    first = benchmark.splits[0]
    made.add_argument("--split", choices=benchmark.splits, help=f"default: {first}"
                        + (f", or {benchmark.tuned_on} to --sweep" if benchmark.tuned_on else ""))  # fmt: skip
    made.add_argument("--model", default=benchmark.model, metavar="M", help=f"default: {benchmark.model}")
    made.add_argument("--method", choices=METHODS.names(), help="default: sum")
    made.add_argument("--table", action="store_true", help="run every possible method and print a markdown table")
    made.add_argument("--center", "--centre", dest="center", choices=[each.value for each in Center],
                        help="how modalities are compared; default: " + " and ".join(benchmark.centers))  # fmt: skip
    made.add_argument("--inversion", metavar="NAME", help="for inversion and cig: a folder, or a published Phi")
    made.add_argument("--generator", metavar="NAME", help="for cig: a folder or a hub id")
    made.add_argument("--captioner", metavar="NAME", help="for caption: an image-to-text model, or table:FILE")
    made.add_argument("--rewriter", metavar="NAME", help="for caption: a chat model, api:MODEL, or join")
    made.add_argument("--template", metavar="TEXT", help="the template of inversion, such as "
                        "'a photo of {word} that {text}'; default: the inversion's own")  # fmt: skip
    made.add_argument("--weights", metavar="JSON", help="""override the tuned ones: JSON such as '{"text": 0.7}', or """
                        + ", ".join(PRESETS))  # fmt: skip
    made.add_argument("--tuned-on", metavar="TEXT", help="where --weights were tuned; stored with the result")
    made.add_argument("--sweep", action="store_true", help="try a grid of weights on this split"
                        + (", for every method, and store the best ones" if benchmark.tuned_on else ""))  # fmt: skip
    made.add_argument(
        "--measure", default=benchmark.main, metavar="NAME", help=f"what --sweep maximizes; default: {benchmark.main}"
    )
    made.add_argument("--limit", type=int, metavar="N", help="at most N queries, spread evenly over the split")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    made.add_argument("--results", type=Path, metavar="DIR", help="also write it to DIR/TASK/MODEL/METHOD.json")
    made.add_argument("--run", type=Path, metavar="FILE", help=f"write a TREC run file of {RUN_DEPTH} ids per query")
    made.add_argument("--submission", type=Path, metavar="DIR", help="folder for the server's files"
                        if benchmark.hidden else argparse.SUPPRESS)  # fmt: skip
    made.add_argument("--asked", choices=[each.value for each in Asked], default=Asked.STORED.value,
                        help="the reference as its stored vector (default), or as its image")  # fmt: skip
    made.add_argument("--device", default="auto", metavar="NAME", help="where models run: auto, cpu, cuda, cuda:1, mps")
    made.add_argument("--dtype", choices=[each.value for each in Dtype], default=Dtype.FLOAT32.value,
                        help="default: float32")  # fmt: skip
    made.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode ahead")
    made.add_argument("--protocol", action="store_true", help="print every choice of the protocol, and exit")
    group = made.add_argument_group("protocol", "Choices in which published numbers differ; --protocol explains them.")
    for field in fields(Protocol):
        mine = getattr(benchmark.choices.default, field.name)
        offered = benchmark.choices.open.get(field.name, ())
        known = ", ".join(str(each) for each in (mine, *offered))
        group.add_argument(f"--{field.name.replace('_', '-')}", metavar="NAME", help=known if offered
                           else argparse.SUPPRESS)  # fmt: skip
    return made


def cache_folder() -> Path:
    """The folder of indexed galleries and pseudo-targets."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "underdrawing" / "benchmarks"


def check(benchmark: Benchmark, options: argparse.Namespace) -> None:
    """Refuse options that conflict; convert types, and set defaults that depend on other options.

    Raises:
        CallError: Options conflict.
    """
    options.asked = Asked(options.asked)
    options.centers = (Center(options.center),) if options.center else benchmark.centers
    options.split = options.split or (
        benchmark.tuned_on if options.sweep and benchmark.tuned_on else benchmark.splits[0]
    )
    if options.sweep and benchmark.tuned_on not in (None, options.split):
        raise CallError(f"Weights are tuned on the {benchmark.tuned_on} split, not on {options.split}.")
    if options.sweep and len(options.centers) > 1:
        raise CallError("A sweep compares modalities in one way.", "Choose it with --center.")
    if options.method is None and not (options.sweep and benchmark.tuned_on):
        options.method = Method.SUM.value
    if options.asked is Asked.PICTURE and not benchmark.home:
        raise CallError("This benchmark's images are not files; references are read as stored vectors.")
    if options.weights in PRESETS:
        options.tuned_on = options.tuned_on or PRESETS[options.weights].source
        options.weights = _preset_weights(options.weights, benchmark.name, options.split)
    else:
        options.weights = _weights(options.weights)
    hidden = options.split in benchmark.hidden
    if options.limit is not None and options.limit < 1:
        raise CallError(f"--limit is {options.limit}; it must be at least 1.")
    if hidden and options.submission is None:
        raise CallError(
            f"The qrels of {benchmark.title}'s split {options.split} are not public.",
            "Give --submission DIR to write the files for its server, or another --split.",
        )
    if hidden and (options.limit is not None or options.sweep or options.run):
        raise CallError("A submission answers every query once: --limit, --sweep and --run are not allowed.")
    if not hidden and options.submission is not None:
        raise CallError(f"--submission is for the split {', '.join(benchmark.hidden) or 'of a server'}.")
    if options.method is None or options.table:
        return
    method = load_method(options.method)
    if unread := sorted(set(options.weights.given()) - method.reads):
        known = ", ".join(sorted(method.reads))
        raise CallError(f"The method {options.method} does not read the weight {unread[0]}.", f"It reads: {known}.")


def _preset_weights(name: str, benchmark: str, split: str) -> Weights:
    """The weights that a published generator's authors use for a split."""
    known = PRESETS[name].weights
    if (benchmark, split) not in known:
        pairs = ", ".join(" ".join(each) for each in known)
        raise CallError(f"{name} has no weights for {benchmark} {split}.", f"It has them for: {pairs}.")
    return known[benchmark, split]


def _weights(text: str | None) -> Weights:
    """The weights given by `--weights`."""
    if text is None:
        return Weights()
    try:
        given = json.loads(text)
        return Weights(**given)
    except (ValueError, TypeError) as error:
        known = ", ".join(field.name for field in fields(Weights))
        raise CallError(
            f"--weights is not a JSON object of weights: {error}.",
            f"""Write '{{"text": 0.7}}', with any of {known}, or name a preset: {", ".join(PRESETS)}.""",
        ) from error
