"""The tables of README.md and of docs/, from `benchmarks/results/`, which the commands below each table write.

What this module does not know: where a table stands, how anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def methods() -> str:
    """EmojiCIR's table and how to repeat it."""
    told = [_read(f"emojicir/bundled-emoji-clip/{name}.json") for name in _METHODS]
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
        "expression, color, clock, direction, moon phase, style) against all 10,577 images, by pixels alone; the "
        "reference is removed; no target was trained on. Percent, macro over families, with half the 95 % bootstrap "
        "interval. Weights were tuned on the validation split and are stored with their curves. The model is "
        f"`{first['model']}`.",
        "",
        *lines,
        "",
        "```console",
        "python -m benchmarks.emojicir --sweep                                   # tunes the weights, on validation",
        "python -m benchmarks.emojicir --split test --table --results benchmarks/results",
        "```",
    ])  # fmt: skip


def mixed() -> str:
    """A mixed collection, by model and by way of comparing, and how to repeat it."""
    lines = [
        "| model | `--center` | nDCG@10 | text queries | image queries | held-out concepts | R@10 | "
        "share of text / image / both, asked by text | asked by an image |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for folder in sorted((RESULTS / "mixed").iterdir(), reverse=True):
        for way in ("off", "means", "on"):
            told = _read(f"mixed/{folder.name}/sum-{way}.json")
            ndcg, aspects = told["measures"]["nDCG@10"], told["aspects"]
            half = 50 * (ndcg["interval_95"][1] - ndcg["interval_95"][0])
            cells = [f"{100 * ndcg['value']:.1f} ± {half:.1f}"]
            for part in ("text queries", "image queries", "held-out concepts"):
                cells.append(f"{100 * aspects[part]['nDCG@10']:.1f}")
            cells.append(f"{100 * told['measures']['R@10']['value']:.1f}")
            for part in ("text queries", "image queries"):
                shares = [told["shares"][part][kind] for kind in told["documents"]]
                cells.append(" / ".join(f"{share:.2f}" for share in shares))
            lines.append(f"| `{told['model']}` | `{way}` | {' | '.join(cells)} |")
    return "\n".join([
        *lines,
        "",
        "```console",
        "python -m benchmarks.mixed --results benchmarks/results",
        "```",
    ])  # fmt: skip


def _read(name: str) -> dict[str, Any]:
    """A result, by its place below `benchmarks/results`."""
    told: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return told


def bridges() -> str:
    """The three connectors, and how to repeat it."""
    from benchmarks.emoji.bridges import markdown

    told = _read("bridges.json")["results"]
    return "\n".join([
        "All use the same samples of the bundled emoji (`benchmarks/recipes/emoji-bridge.json`), with the image "
        "encoder of `bundled:emoji-clip` and the text model all-MiniLM-L6-v2. Percent; names among 3,786, images among "
        "10,577 for concepts of the test part; EmojiCIR's validation split:",
        "",
        markdown(told),
        "",
        "The commands are at the top of `benchmarks/emoji/bridges.py`.",
    ])  # fmt: skip


def model() -> str:
    """The emoji-clip table and how to repeat it."""
    told = _read("names/bundled-emoji-clip.json")
    lines = [
        "`bundled:emoji-clip`, trained here from scratch (its card: `indexer/bundled/emoji-clip/README.md`):",
        "",
        "| R@10 | trained concepts | validation, never seen | test, never seen |",
        "| --- | ---: | ---: | ---: |",
    ]
    for key, label in (
        ("image_to_text", "an image among 3,786 names"),
        ("text_to_image", "a name among 10,577 images"),
    ):
        values = [f"{100 * told[key][split]['R@10']:.1f}" for split in ("train", "validation", "test")]
        lines.append(f"| {label} | " + " | ".join(values) + " |")
    synonyms = told["synonyms"]
    lines += [
        "",
        f"{synonyms['words']} words that occur in no caption (*canine*, *sofa*, *pupil*) find a right image in the "
        f"top ten in {100 * synonyms['R@10']:.1f} % of cases.",
        "",
        "```console",
        "underdrawing train clip indexer/bundled/emoji.parquet --out runs/emoji-clip \\",
        "    --recipe benchmarks/recipes/emoji-clip.json",
        "python -m benchmarks.emoji.names --json benchmarks/results/names/bundled-emoji-clip.json",
        "```",
    ]
    return "\n".join(lines)


def drawings() -> str:
    """What pseudo-targets bring and cost, and how to repeat it."""
    told = _read("speed/pseudo-targets.json")
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
        f"Cost of a pseudo-target, `{merge}`, {told['steps']['queries']:,} queries in batches of 32 on two CPU cores:",
        "",
        *_table(
            ["steps", "guidance", "images", "evaluations", "ms per query", "R@1", "R@10"],
            [
                [*(f"{row[name]:g}" for name in ("steps", "guidance", "images", "evaluations")),
                 f"{row['ms_per_query']:.0f}", f"{row['R@1']:.1f}", f"{row['R@10']:.1f}"]
                for row in rows["steps"]
            ],
        ),
        "",
        "Pseudo-targets only if the first two scores are close (`gate`):",
        "",
        *_table(
            ["share of queries", "R@1", "R@10"],
            [[f"{100 * row['share']:.0f} %", f"{row['R@1']:.1f}", f"{row['R@10']:.1f}"] for row in rows["gate"]],
        ),
        "",
        f"Degraded references, R@1 / R@10, {told['references']['queries']:,} queries:",
        "",
        *_table(
            ["reference", *(f"`{name}`" for name in spoilt)],
            [[row["reference"], *(_both(row[name], "") for name in spoilt)] for row in rows["references"]],
        ),
        "",
        "What a pseudo-target makes right at rank 1 (fixed), and what it makes wrong (broken); R@1 / R@10:",
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
        "python -m benchmarks.speed.compose --part differences stages gate references families --limit 400 \\",
        "    --json benchmarks/results/speed/pseudo-targets.json --pictures docs",
        "python -m benchmarks.speed.compose --part steps --limit 100 \\",
        "    --json benchmarks/results/speed/pseudo-targets.json",
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
    """Every bar of speed beside what was measured."""
    search, index = _speeds()
    lines = [line for name, part in search.items() if name not in ("peers", "crossover") for line in part["lines"]]
    rows = [[line["work"], line["bar"], _reached(line["value"], line["unit"], line["reached"])] for line in lines]
    rows += [_indexing(row, index)[:3] for row in index["rows"] if row["best"]]
    rows += [_texts(index)[:3]]
    facts = search["exact"]["machine"]
    return "\n".join([
        f"On {facts['cores']} cores of an {facts['processor']}. Contenders take turns, and a ratio is a median of the "
        "turns'. **Bold** reaches its bar; the times behind each line are below.",
        "",
        *_table(["work", "bar", "measured"], rows),
        "",
        "![How the cost of a query and of a commit grows with the number of vectors](speed.png)",
        "",
        *_peers(search["peers"]),
    ])  # fmt: skip


def proof() -> str:
    """The README's few lines of two tables, `methods` and `speed`."""
    found = {line.split(" | ")[0].strip("| `"): line.split(" | ") for line in methods().splitlines()}
    chosen = ("text", "image", "sum", "inversion", "cig-product")
    first = next(cells for cells in found.values() if "R@1" in cells).index("R@1")
    lines = [[f"`{name}`", found[name][1], found[name][first].strip("*")] for name in chosen]
    work = ("one query, exact,", "filter that 1 % match,", "open to first answer, 1,000,000 × 128, exact")
    bars = [line.strip("| ").split(" | ") for line in speed().splitlines() if line.startswith("| ")]
    return "\n".join([
        *_table(["method", "what it does", "right answer first, % of EmojiCIR's queries"], lines),
        "",
        *_table(["work", "bar", "measured"], [bar for bar in bars if bar[0].startswith(work)]),
    ])  # fmt: skip


def speed_details() -> str:
    """The times behind every line of the table of speed, and how to repeat them."""
    search, index = _speeds()
    lines = [line for name, part in search.items() if name != "peers" for line in part["lines"]]
    rows = [[line["work"], _reached(line["value"], line["unit"], line["reached"]), line["told"]] for line in lines]
    rows += [[each[0], each[2], each[3]] for each in (_indexing(row, index) for row in index["rows"])]
    work, _, reached, told = _texts(index)
    peaks = ", ".join(f"{mb:.0f} MB for {int(count):,} texts" for count, mb in index["memory_mb"].items())
    loads = {name: part["machine"]["load"][0] for name, part in search.items()}
    return "\n".join([
        *_table(["work", "measured", "behind it"], [*rows, [work, reached, told]]),
        "",
        f"Memory of indexing, at most: {peaks}. Load average when each part began: "
        + ", ".join(f"`{name}` {load:g}" for name, load in loads.items())
        + ".",
        "",
        "```console",
        "make bench",
        "python -m benchmarks.speed_search --json benchmarks/results/speed/search.json --plot docs/speed.png",
        "python -m benchmarks.speed_index --json benchmarks/results/speed/index.json",
        "```",
    ])  # fmt: skip


def _speeds() -> tuple[dict[str, Any], dict[str, Any]]:
    """What `speed_search` and `speed_index` wrote; of each type of arithmetic, the best row of the latter is marked."""
    search = _read("speed/search.json")
    index = _read("speed/index.json")
    for row in index["rows"]:
        same = [each["of_raw"]["median"] for each in index["rows"] if each["dtype"] == row["dtype"]]
        row["best"] = row["of_raw"]["median"] == max(same)
    return search, index


def _peers(told: dict[str, Any]) -> list[str]:
    """Libraries beside each other: a query, and a filtered one."""
    rows = [
        [f"{name} {told['versions'][name]}", *_beside(plain), *_beside(told["filtered"].get(name))]
        for name, plain in told["plain"].items()
        if name in told["versions"]
    ]
    work = told["lines"][0]["work"].split(", ", 1)[1].rsplit(", and ", 1)[0]
    recalls = ", ".join(
        f"{name} {told['plain'][name]['recall']:.3f}" for name in told["plain"] if name not in told["versions"]
    )
    return [
        f"Other libraries, {work}, each in turns with ours, one query, rows returned (recall of ours: {recalls}). "
        "The filter is another one in each turn, and 1 % match. FAISS and usearch keep no rows: a table in SQLite "
        "stands beside them, and they are asked without a filter. Graphs are compared with our graph, all else with "
        "our exact search.",
        "",
        *_table(["", "ms (recall)", "ours", "filtered, ms (recall)", "ours"], rows),
        "",
        "```console",
        "make bench-peers",
        "```",
    ]


def _beside(row: dict[str, Any] | None) -> list[str]:
    """A library's time, and ours as a multiple of it."""
    if row is None:
        return ["", ""]
    return [_answered(row), _reached(row["ours_of_it"], "x", row["ours_of_it"] <= 1)]


def _answered(row: dict[str, Any]) -> str:
    fewest = "" if row["found"] == 10 else f", at least {row['found']} of 10 found"
    return f"{row['median']:g} ({row['recall']:.3f}{fewest})"


def _indexing(row: dict[str, Any], index: dict[str, Any]) -> list[str]:
    speed, waits = row["images_per_second"], f"the model waits {100 * row['waiting_share']:.0f} % of the time"
    drafted = f", draft {row['draft']}" if row["draft"] else ""
    decoding = f", decoded in {row['workers']} process" if row["workers"] else ""
    width, height = index["photograph"]
    return [
        f"indexing photographs of {width} × {height}, {index['architecture']}, {row['dtype']}{drafted}{decoding}",
        "≥ 0.95 of the raw forward rate",
        _reached(row["of_raw"]["median"], "", row["reached"]),
        f"{speed['index']:g} of {speed['raw']:g} images/s; simple loop {row['loop_of_raw']['median']:.2f}; {waits}",
    ]


def _texts(index: dict[str, Any]) -> list[str]:
    row = index["texts"]
    ratio = row["of_raw"]["median"]
    return [
        f"indexing texts alone, {index['architecture']}, float32",
        "≥ 0.95 of the raw forward rate",
        _reached(ratio, "", ratio >= 0.95),
        f"{row['texts']} texts; the model waits {100 * row['waiting_share']:.0f} % of the time",
    ]


def _reached(value: float, unit: str, reached: bool) -> str:
    shown = f"{value:.3g}" + {"x": " ×", "": ""}.get(unit, f" {unit}")
    return f"**{shown}**" if reached else shown


def registry() -> str:
    """Every method: its name, its line, what it needs beside the embedder, the weights it reads."""
    from retrieval.methods import METHODS, load_method

    lines = ["| method | answers by | needs | reads the weights |", "| --- | --- | --- | --- |"]
    for name, line in METHODS.help().items():
        method = load_method(name)
        needs = ", ".join(each.value for each in method.needs) or "–"
        reads = ", ".join(f"`{each}`" for each in sorted(method.reads))
        lines.append(f"| `{name}` | {line} | {needs} | {reads} |")
    return "\n".join(lines)


_METHODS = {
    "text": "the sentence alone",
    "image": "the reference alone",
    "sum": "weighted sum of the two unit vectors",
    "slerp": "a point on the arc between them",
    "product": "both similarities, centered, then multiplied (BASIC)",
    "shift": "the reference, moved along the change of text (AdaST)",
    "inversion": "the sentence, read with a pseudo-word for the reference (SEARLE, LinCIR)",
    "cig-reinvert": "`inversion` and a pseudo-target, inverted again (CIG)",
    "cig-embed": "`inversion` and a pseudo-target's vector, centered",
    "cig-product": "`inversion` times a pseudo-target's similarity (IP-CIR)",
}


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "registry": registry,
    "mixed": mixed,
    "bridges": bridges,
    "drawings": drawings,
    "model": model,
    "proof": proof,
    "speed": speed,
    "speed-details": speed_details,
}
