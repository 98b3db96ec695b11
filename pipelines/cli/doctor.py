"""The command `doctor`: shows what `pipelines.diagnostics.doctor` found.

What this module does not know: how anything is found out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.collection import AsJson
from pipelines.terminal.console import err, examples, first, out, plain, show_facts, show_json

if TYPE_CHECKING:
    from pipelines.diagnostics.doctor import Diagnosis

EPILOG = examples("underdrawing doctor", "underdrawing doctor --models | grep SigLIP2", "underdrawing doctor --json")


def doctor(
    models: Annotated[
        bool, typer.Option("--models", help="List the models that --model takes, instead of checking the machine.")
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="List the methods that search --method takes, with a line about each.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation: versions, devices, FAISS, and a test search.

    Its output belongs in a bug report. Exits with 1 if the search fails.
    """
    if models:
        _models(as_json)
        return
    if methods:
        _methods(as_json)
        return
    from pipelines.diagnostics.doctor import examine

    with err.status("Looking"):
        diagnosis = examine()
    if as_json:
        show_json({**asdict(diagnosis), "well": diagnosis.well})
    else:
        _show(diagnosis)
    if not diagnosis.well:
        raise typer.Exit(1)


def _models(as_json: bool) -> None:
    from pipelines.diagnostics.doctor import EMBEDDERS, bundled_models, open_clip_models

    bundled = [f"bundled:{name}" for name, there in bundled_models().items() if there and name in EMBEDDERS]
    published = open_clip_models()
    if as_json:
        show_json({"bundled": bundled, "open_clip": published})
        return
    names = [f"open_clip:{architecture}/{tag}" for architecture, tags in published.items() for tag in tags]
    for name in [*bundled, *names]:
        out.print(name, markup=False, soft_wrap=True)


def _methods(as_json: bool) -> None:
    from retrieval.methods import METHODS

    lines = METHODS.help()
    if as_json:
        show_json(lines)
    else:
        show_facts(lines)


def _show(diagnosis: Diagnosis) -> None:
    _section("Versions", {name: version or "not installed" for name, version in diagnosis.versions.items()})
    speedup, flags = diagnosis.bf16.speedup, ", ".join(diagnosis.bf16.flags) or "no instructions for it"
    advice = "; --dtype bfloat16 pays" if diagnosis.bf16.pays else "; stay with float32 on the CPU"
    measured = "" if speedup is None else f"{speedup:.1f} times as fast as float32{advice} "
    _section(
        "Machine",
        {
            "processor": f"{diagnosis.processor}, {diagnosis.threads} threads",
            "bfloat16": f"{measured}({flags})",
            "devices": "\n".join(diagnosis.devices) or "none besides the CPU",
            "runs on": f"{diagnosis.device} (--device names another)",
        },
    )
    _section("FAISS", _faiss(diagnosis))
    _section("Bundled models", {name: "there" if there else "missing" for name, there in diagnosis.bundled.items()})
    if diagnosis.plugins:
        _section(
            "Plugins",
            {f"{each.kind} {each.name}": each.problem or f"from {each.package}" for each in diagnosis.plugins},
        )
    for problem in diagnosis.problems:
        out.print(f"\n{problem}", markup=False, style="yellow", soft_wrap=True)
    smoke = diagnosis.smoke
    verdict = "[bold green]A search works.[/]" if smoke.passed else "[bold red]A search fails.[/]"
    out.print(f"\n{verdict}", end=" ")
    out.print(f"{plain(smoke.detail)}, in {smoke.milliseconds:,.0f} ms", markup=False, soft_wrap=True)


def _faiss(diagnosis: Diagnosis) -> dict[str, str]:
    if diagnosis.faiss is None:
        return {"faiss": "not usable: searches are exact, and large collections slow"}
    packages = [f"{name} {version}" for name, version in diagnosis.faiss["packages"].items()]
    return {
        "package": first(packages, len(packages)) or f"version {diagnosis.faiss['version']}, not from pip",
        "built with": str(diagnosis.faiss["compile_options"]),
        "GPUs": str(diagnosis.faiss["gpus"] or ""),
    }


def _section(title: str, facts: dict[str, str]) -> None:
    out.print(f"\n[bold]{title}[/]")
    show_facts(facts)
