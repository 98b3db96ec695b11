"""Write the generated parts of README.md and of docs/: the file list and the tables of measured results.

    python docs/generate.py            rewrite
    python docs/generate.py --check    fail where the file differs

Phrases of the file list are the first sentences of the modules' docstrings; numbers come from `benchmarks/results/`,
written by the commands that stand below each table.

What this module does not know: how anything was measured.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"

FOLDERS = ("indexer", "retrieval", "pipelines", "benchmarks", "docs")
OTHERS = {
    "benchmarks/expected.json": "published rows with their sources, shown beside what is measured",
    "benchmarks/recipes/emoji-bridge.json": "what the bridges of the table are trained with",
    "benchmarks/recipes/emoji-clip-first.json": "the model that `emoji-clip` started from",
    "benchmarks/recipes/emoji-clip.json": "what `emoji-clip` and `emoji-inversion` were trained with",
    "benchmarks/recipes/emoji-generator-first.json": "the generator that `emoji-generator` started from",
    "benchmarks/recipes/emoji-generator.json": "what `emoji-generator` was trained with",
    "benchmarks/recipes/emoji-gme.json": "what `emoji-gme` is trained with",
    "benchmarks/recipes/emoji-inversion-first.json": "the inversion that the first generator started from",
    "benchmarks/recipes/emoji-gme-first.json": "the model that `emoji-gme` started from",
    "benchmarks/recipes/emoji-synthesised.jsonl": "138 records that `synthesize` made of the corpus with SmolLM2-135M",
    "benchmarks/results/bridges.json": "measured: the connectors of bridges",
    "benchmarks/results/compose.json": "measured: what pseudo-targets bring and cost",
    "benchmarks/results/emoji-clip.json": "measured: names and synonyms",
    "benchmarks/results/emojicir-test.json": "measured: every method on EmojiCIR's test split",
    "benchmarks/results/emojicir-joint.json": "measured: the method joint on EmojiCIR's test split",
    "benchmarks/results/emoji-gme.json": "measured: names and synonyms, by the model that reads both",
    "benchmarks/results/mixed.json": "measured: a mixed collection, centred and not",
    "benchmarks/results/mixed-bridge-mlp.json": "measured: the same by a bridge with an MLP",
    "benchmarks/results/mixed-emoji-gme.json": "measured: the same by emoji-gme",
    "benchmarks/results/speed-index.json": "measured: indexing beside the raw encoder",
    "benchmarks/results/speed-search.json": "measured: searching beside raw FAISS and NumPy",
    "benchmarks/synonyms.json": "words that no caption of the corpus holds, and the names they mean",
    "docs/benchmarks.md": "published benchmarks: how to run them, their protocols, submissions",
    "docs/cli.md": "the help of every command, generated",
    "docs/drawing.md": "words and pseudo-targets: options, published models, your own",
    "docs/files.md": "this list, generated",
    "docs/joint.md": "one model for text, picture and both",
    "docs/libraries.md": "adapters for mteb and sentence-transformers",
    "docs/measured.md": "what drawings bring and cost, what the bundled models know; tables generated",
    "docs/mixed.md": "collections that mix texts and pictures",
    "docs/sentences.md": "captioners and rewriters",
    "docs/fixed-and-broken.png": "queries that a pseudo-target puts right, and wrong",
    "docs/pseudo-targets.png": "references, sentences and what is drawn",
    "docs/weights.png": "how good each weight was on the validation split",
    "docs/report.png": "the demo's report",
    "docs/synthesis.png": "a contact sheet: synthesised records, and what was dropped",
    "docs/speed.png": "how cost grows with the number of vectors",
    "indexer/bundled/LICENSES.md": "whose drawings and names these are",
    "indexer/bundled/README.md": "the bundled data: columns, split, the ten families of queries",
    "indexer/bundled/emoji-clip": "the trained model, an open_clip folder with its card",
    "indexer/bundled/emoji-gme": "one model for texts, pictures and both, a transformers folder with its card",
    "indexer/bundled/emoji-generator": "the generator of pseudo-targets, a diffusers folder with its card",
    "indexer/bundled/emoji-inversion": "the network that makes words for `emoji-clip`, with its card",
    "indexer/bundled/emoji.parquet": "10,577 drawings of 3,786 emoji with names, keywords and fields",
    "indexer/bundled/emojicir.parquet": "EmojiCIR's queries, targets and subsets",
    "indexer/bundled/generic_texts.txt": "texts about anything: what centring subtracts from a query's text",
    "pipelines/synthesis/prompts/deictic.txt": "the words by which a rewritten question points at its picture",
    "pipelines/synthesis/prompts/question.txt": "how a language model is asked for a question about a passage",
    "pipelines/synthesis/prompts/rewrite.txt": "how it is asked to point at the thing that the question names",
    "pipelines/templates/base.html.j2": "the looks of every page",
    "pipelines/templates/demo.html.j2": "the demo's report",
    "pipelines/templates/search.html.j2": "the page of one search",
    "pipelines/templates/synthesis.html.j2": "the contact sheet of a synthesis",
    "retrieval/compose/weights.json": "each method's weights, with the split and the curve they come from",
    "retrieval/write/prompts/caption.txt": "what captioners that can be asked are asked",
    "retrieval/write/prompts/rewrite.txt": "what language models are told to make of a caption and a change",
}


def file_list() -> str:
    """Every file of the project with a phrase, in reading order."""
    lines = ["```"]
    for folder in FOLDERS:
        for path in _files(ROOT / folder):
            name = path.relative_to(ROOT).as_posix()
            lines.append(f"{name:44} {OTHERS.get(name) or _phrase(path)}")
        lines.append("")
    lines.append(
        "tests/" + " " * 39 + "mirrors the packages; compat/ contract/ crash/ differential/ docs/ fuzz/ stateful/"
    )
    return "\n".join([*lines, "```"])


def methods() -> str:
    """EmojiCIR's table and how to repeat it."""
    told = json.loads((RESULTS / "emojicir-test.json").read_text(encoding="utf-8"))["results"]
    told.append(json.loads((RESULTS / "emojicir-joint.json").read_text(encoding="utf-8")))
    names = list(told[0]["measures"])
    best = {name: max(each["measures"][name]["value"] for each in told) for name in names}
    lines = ["| method | what it does | " + " | ".join(names) + " |", "| --- | --- |" + " ---: |" * len(names)]
    for each in told:
        cells = []
        for name in names:
            value, (low, high) = each["measures"][name]["value"], each["measures"][name]["interval_95"]
            cell = f"{100 * value:.1f} ± {50 * (high - low):.1f}"
            cells.append(f"**{cell}**" if value == best[name] else cell)
        idle = each["weights"].get("pseudo_target") == 0
        what = _METHODS[each["method"]] + ("; its best weight here is 0, so it is `inversion`" if idle else "")
        lines.append(f"| `{each['method']}` | {what} | " + " | ".join(cells) + " |")
    first = told[0]
    return "\n".join([
        f"EmojiCIR's test split: {first['queries']:,} queries of ten families (skin tone, gender, hair, role, "
        "expression, colour, clock, direction, moon phase, style) against all 10,577 drawings, by pixels alone; the "
        "reference is removed; no target was trained on. Percent, macro over families, with half the 95 % bootstrap "
        "interval. Weights were tuned on the validation split and are stored with their curves. `joint` is "
        f"`{told[-1]['model']}`, all others are `{first['model']}`; both were trained on the same drawings.",
        "",
        *lines,
        "",
        "```console",
        "python -m benchmarks.emojicir --sweep                                   # tunes the weights, on validation",
        "python -m benchmarks.emojicir --split test --table --json benchmarks/results/emojicir-test.json",
        "python -m benchmarks.emojicir --split test --method joint --model bundled:emoji-gme \\",
        "    --json benchmarks/results/emojicir-joint.json",
        "```",
    ])  # fmt: skip


def mixed() -> str:
    """A mixed collection, by model and by way of comparing, and how to repeat it."""
    lines = [
        "| model | `--centre` | nDCG@10 | text queries | picture queries | held-out concepts | R@10 | "
        "share of text / image / both, asked by text | asked by a picture |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for file in sorted(RESULTS.glob("mixed*.json"), key=lambda each: (len(each.name), each.name)):
        told = json.loads(file.read_text(encoding="utf-8"))
        for way, parts in told["measures"].items():
            everything = parts["all"]["nDCG@10"]
            half = 50 * (everything["interval_95"][1] - everything["interval_95"][0])
            cells = [f"{100 * everything['value']:.1f} ± {half:.1f}"]
            for part in ("text queries", "image queries", "held-out concepts"):
                cells.append(f"{100 * parts[part]['nDCG@10']['value']:.1f}")
            cells.append(f"{100 * parts['all']['R@10']:.1f}")
            for part in ("text queries", "image queries"):
                cells.append(" / ".join(f"{share:.2f}" for share in parts[part]["share"].values()))
            lines.append(f"| `{told['model']}` | `{way}` | {' | '.join(cells)} |")
    return "\n".join([
        *lines,
        "",
        "```console",
        "python -m benchmarks.mixed --json benchmarks/results/mixed.json",
        "python -m benchmarks.mixed --model bundled:emoji-gme --json benchmarks/results/mixed-emoji-gme.json",
        "```",
    ])  # fmt: skip


def bridges() -> str:
    """The three connectors, and how to repeat it."""
    from benchmarks.bridges import markdown

    told = json.loads((RESULTS / "bridges.json").read_text(encoding="utf-8"))["results"]
    return "\n".join([
        "Trained on the bundled drawings, tower `bundled:emoji-clip`, text model all-MiniLM-L6-v2, the same samples "
        "for each (`benchmarks/recipes/emoji-bridge.json`); percent; names among 3,786 and drawings among 10,577 for "
        "concepts of the test part, EmojiCIR's validation split:",
        "",
        markdown(told),
        "",
        "The commands stand at the top of `benchmarks/bridges.py`.",
    ])  # fmt: skip


def model() -> str:
    """The emoji-clip table and how to repeat it."""
    told = json.loads((RESULTS / "emoji-clip.json").read_text(encoding="utf-8"))
    lines = [
        "`bundled:emoji-clip`, trained here from scratch (its card: `indexer/bundled/emoji-clip/README.md`):",
        "",
        "| R@10 | trained concepts | validation, never seen | test, never seen |",
        "| --- | ---: | ---: | ---: |",
    ]
    for key, label in (
        ("image_to_text", "a drawing among 3,786 names"),
        ("text_to_image", "a name among 10,577 drawings"),
    ):
        values = [f"{100 * told[key][split]['R@10']:.1f}" for split in ("train", "validation", "test")]
        lines.append(f"| {label} | " + " | ".join(values) + " |")
    synonyms = told["synonyms"]
    lines += [
        "",
        f"{synonyms['words']} words that occur in no caption (*canine*, *sofa*, *pupil*) find a right drawing among "
        f"ten in {100 * synonyms['R@10']:.1f} % of cases.",
        "",
        "```console",
        "underdrawing train clip indexer/bundled/emoji.parquet --out runs/emoji-clip \\",
        "    --recipe benchmarks/recipes/emoji-clip.json",
        "python -m benchmarks.emoji_clip --json benchmarks/results/emoji-clip.json",
        "```",
    ]
    return "\n".join(lines)


def drawings() -> str:
    """What pseudo-targets bring and cost, and how to repeat it."""
    told = json.loads((RESULTS / "compose.json").read_text(encoding="utf-8"))
    rows = {part: own["rows"] for part, own in told.items()}
    merge = told["families"]["cig"]
    spoilt = [name for name in rows["references"][0] if name != "reference"]
    return "\n".join([
        f"Differences between methods on the same {told['differences']['queries']:,} queries, in points, with the 95 % "
        "bootstrap interval of the difference:",
        "",
        *_table(
            ["method", "over", "R@1", "R@10"],
            [
                [f"`{row['of']}`", f"`{row['over']}`", _difference(row["R@1"]), _difference(row["R@10"])]
                for row in rows["differences"]
            ],
        ),
        "",
        f"What a drawing costs, `{merge}`, {told['steps']['queries']:,} queries in batches of 32 on two CPU cores:",
        "",
        *_table(
            ["steps", "guidance", "pictures", "evaluations", "ms a query", "R@1", "R@10"],
            [
                [*(f"{row[name]:g}" for name in ("steps", "guidance", "images", "evaluations")),
                 f"{row['ms_per_query']:.0f}", f"{row['R@1']:.1f}", f"{row['R@10']:.1f}"]
                for row in rows["steps"]
            ],
        ),
        "",
        "Drawing only where the first two scores are close (`gate`):",
        "",
        *_table(
            ["drawn for", "R@1", "R@10"],
            [[f"{100 * row['share']:.0f} %", f"{row['R@1']:.1f}", f"{row['R@10']:.1f}"] for row in rows["gate"]],
        ),
        "",
        f"References spoilt, R@1 / R@10, {told['references']['queries']:,} queries:",
        "",
        *_table(
            ["reference", *(f"`{name}`" for name in spoilt)],
            [[row["reference"], *(_both(row[name], "") for name in spoilt)] for row in rows["references"]],
        ),
        "",
        "What a drawing puts right at the first place, and what it puts wrong; R@1 / R@10:",
        "",
        *_table(
            ["family", "queries", "fixed", "broken", "`sum`", "`inversion`", f"`{merge}`"],
            [
                [row["family"].replace("_", " "), *(str(row[name]) for name in ("queries", "fixed", "broken")),
                 *(_both(row, f"{name} ") for name in ("sum", "inversion", merge))]
                for row in rows["families"]
            ],
        ),
        "",
        "Milliseconds of one query at a time, medians: "
        + "; ".join(
            f"`{name}` " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in own.items())
            for name, own in rows["stages"].items()
        )
        + ".",
        "",
        "```console",
        "python -m benchmarks.speed_compose --part differences stages gate references families --limit 400 \\",
        "    --json benchmarks/results/compose.json --pictures docs",
        "python -m benchmarks.speed_compose --part steps --limit 100 --json benchmarks/results/compose.json",
        "```",
    ])  # fmt: skip


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def _difference(told: dict[str, Any]) -> str:
    low, high = told["interval_95"]
    return f"{told['points']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _both(told: dict[str, Any], prefix: str) -> str:
    return f"{told[f'{prefix}R@1']:.1f} / {told[f'{prefix}R@10']:.1f}"


def speed() -> str:
    """Every bar of speed beside what was measured, and how to repeat it."""
    search = json.loads((RESULTS / "speed-search.json").read_text(encoding="utf-8"))
    file = RESULTS / "speed-index.json"
    index = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": [], "memory_mb": {}}
    rows = [
        [line["work"], line["bar"], _reached(line["value"], line["unit"], line["reached"]), line["told"]]
        for part in search.values()
        for line in part["lines"]
    ]
    rows += [_indexing(row, index["architecture"]) for row in index["rows"]]
    plot = "![How the cost of a query and of a commit grows with the number of vectors](docs/speed.png)"
    peaks = [f"{mb:.0f} MB for {int(count):,} texts" for count, mb in index["memory_mb"].items()]
    facts = search["exact"]["machine"]
    loads = {name: part["machine"]["load"][0] for name, part in search.items()}
    loaded = [f"{load:g} (`{name}`)" for name, load in loads.items() if load > facts["cores"]]
    remark = f" Milliseconds are of a loaded machine in {', '.join(loaded)} (load average)." if loaded else ""
    return "\n".join([
        f"On {facts['cores']} cores of an {facts['processor']}. Contenders take turns, and a ratio is a median of the "
        f"turns'. **Bold** reaches its bar.{remark}",
        "",
        *_table(["work", "bar", "measured", "behind it"], rows),
        "",
        *([f"Indexing holds at most {' and '.join(peaks)}.", ""] if peaks else []),
        *([plot, ""] if "growth" in search else []),
        "```console",
        "make bench",
        "python -m benchmarks.speed_search --json benchmarks/results/speed-search.json --plot docs/speed.png",
        "python -m benchmarks.speed_index --json benchmarks/results/speed-index.json",
        "```",
    ])  # fmt: skip


def _indexing(row: dict[str, Any], architecture: str) -> list[str]:
    speed, waits = row["images_per_second"], f"the model waits {100 * row['waiting_share']:.0f} % of the time"
    drafted = f", draft {row['draft']}" if row["draft"] else ""
    return [
        f"indexing photographs, {architecture}, {row['dtype']}{drafted}",
        "≥ 0.95 of the raw forward rate",
        _reached(row["of_raw"]["median"], "", row["reached"]),
        f"{speed['index']:g} of {speed['raw']:g} images/s; simple loop {row['loop_of_raw']['median']:.2f}; {waits}",
    ]


def _reached(value: float, unit: str, reached: bool) -> str:
    shown = f"{value:.3g}" + {"x": " ×", "": ""}.get(unit, f" {unit}")
    return f"**{shown}**" if reached else shown


_METHODS = {
    "text": "the sentence alone",
    "image": "the reference alone",
    "sum": "weighted sum of the two unit vectors",
    "slerp": "a point on the arc between them",
    "product": "both similarities, centred, then multiplied (BASIC)",
    "shift": "the reference, moved along the change of text (AdaST)",
    "inversion": "the sentence, read with a word made of the reference (SEARLE, LinCIR)",
    "cig-reinvert": "`inversion` and a pseudo-target, made a word again (CIG)",
    "cig-embed": "`inversion` and a pseudo-target's vector, centred",
    "cig-product": "`inversion` times a pseudo-target's similarity (IP-CIR)",
    "joint": "reference and sentence read at once by one model (GME)",
    "caption": "the reference's caption, rewritten by a language model, as a text (CIReVL)",
}

SECTIONS: dict[str, Callable[[], str]] = {
    "methods": methods,
    "mixed": mixed,
    "bridges": bridges,
    "drawings": drawings,
    "model": model,
    "speed": speed,
    "files": file_list,
}


def pages() -> list[Path]:
    """The documents that have generated parts, or may have; `docs/cli.md` is generated whole, by the program."""
    return [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "cli.md")]


def generated() -> dict[Path, str]:
    """Every page with its generated parts made anew.

    Raises:
        SystemExit: A part stands on no page, or on two.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in pages()}
    for name, make in SECTIONS.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.DOTALL)
        having = [path for path, text in texts.items() if pattern.search(text)]
        if len(having) != 1:
            raise SystemExit(f"{start} … {end} must stand on one page; it stands on {[path.name for path in having]}.")
        section = f"{start}\n{make()}\n{end}"
        texts[having[0]] = pattern.sub(lambda _, section=section: section, texts[having[0]])  # type: ignore[misc]
    return texts


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), key=lambda each: (each.is_dir(), each.name)):
        if path.name.startswith((".", "__pycache__")) or path.suffix == ".pyc":
            continue
        if path.relative_to(ROOT).as_posix() in OTHERS or path.is_file():
            yield path
        else:
            yield from _files(path)


def _phrase(path: Path) -> str:
    if path.suffix != ".py":
        raise SystemExit(f"{path.relative_to(ROOT)} has no phrase: add one to OTHERS in docs/generate.py.")
    docstring: Any = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{path.relative_to(ROOT)} has no docstring.")
    first = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s", first)[0].rstrip(".;:")


def main() -> int:
    """Rewrite, or with `--check` compare."""
    stale = {path: text for path, text in generated().items() if text != path.read_text(encoding="utf-8")}
    if "--check" in sys.argv[1:]:
        if stale:
            names = ", ".join(path.relative_to(ROOT).as_posix() for path in stale)
            sys.stderr.write(f"{names}: out of date; run python docs/generate.py\n")
        return 1 if stale else 0
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
