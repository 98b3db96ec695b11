"""Write the generated parts of README.md and of docs/: the file list and the tables of measured results.

    python docs/generate.py            rewrite
    python docs/generate.py --check    fail where the file differs

Phrases of the file list are the first sentences of the modules' docstrings; tables come from `tables.py`.

What this module does not know: what was measured.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tables import TABLES

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = ("underdrawing", "indexer", "retrieval", "pipelines", "benchmarks", "examples", "docs")
OTHERS = {
    "benchmarks/harness/expected.json": "published rows with their sources, for comparison",
    "benchmarks/recipes/emoji-bridge.json": "the recipe of the bridges in the table",
    "benchmarks/recipes/emoji-clip-first.json": "the recipe of the model that `emoji-clip` started from",
    "benchmarks/recipes/emoji-clip.json": "the recipe of `emoji-clip` and `emoji-inversion`",
    "benchmarks/recipes/emoji-generator-first.json": "the generator that `emoji-generator` started from",
    "benchmarks/recipes/emoji-generator.json": "the recipe of `emoji-generator`",
    "benchmarks/recipes/emoji-inversion-first.json": "the inversion that the first generator started from",
    "benchmarks/recipes/photo-clip.json": "the recipe of the photo model",
    "benchmarks/results/bridges.json": "results: the connectors of bridges",
    "benchmarks/results/emojicir": "results: methods on EmojiCIR's test split, MODEL/METHOD.json",
    "benchmarks/results/mixed": "results: a mixed collection, centered and not, MODEL/METHOD-WAY.json",
    "benchmarks/results/names": "results: names and synonyms, by model",
    "benchmarks/results/speed": "results: speed of search, indexing and pseudo-targets",
    "benchmarks/emoji/synonyms.json": "words that are in no caption of the corpus, and the names they stand for",
    "docs/benchmarks.md": "published benchmarks: how to run them, their protocols, submissions",
    "docs/cli.md": "the help of every command, generated",
    "docs/corpora.md": "what can be indexed: ids, sidecars, links, files that are passed over",
    "docs/extending.md": "how to add an embedder, method, vector store, reader, transform or re-ranker, in one file",
    "docs/filters.md": "filters: operators, names, times, and notes",
    "docs/library.md": "collections, results, references and errors in Python",
    "docs/upgrading.md": "what changed for a user, and what to do with collections that exist",
    "docs/collections.md": "collections on disk: upgrades, copies, damage",
    "docs/drawing.md": "pseudo-words and pseudo-targets: options, published models, your own",
    "docs/favicon.svg": "the site's icon",
    "docs/files.md": "this list, generated",
    "docs/models.md": "models: what a folder may do, devices, offline, forks, how they load",
    "docs/indexes.md": "indexes, filters, GPUs, and what each costs",
    "docs/images.md": "image formats, transparency, large photographs, EXIF, documents of several images",
    "docs/joint.md": "one model for text, image and both",
    "docs/libraries.md": "adapters for mteb and sentence-transformers",
    "docs/methods.md": "the methods, and what each needs",
    "docs/promises.md": "what is promised, where it is tested, and the limits",
    "docs/measured.md": "quality of methods and bundled models, cost of pseudo-targets; tables generated",
    "docs/mixed.md": "collections that mix texts and images",
    "docs/releasing.md": "the checklist of a release",
    "docs/sentences.md": "captioners and rewriters",
    "docs/fixed-and-broken.png": "queries that a pseudo-target fixes and breaks",
    "docs/pseudo-targets.png": "references, sentences and pseudo-targets",
    "docs/weights.png": "validation measure by weight",
    "docs/report.png": "the demo's report",
    "docs/synthesis.png": "a contact sheet: synthesized records, and what was dropped",
    "docs/site.css": "how wide the site is",
    "docs/speed.md": "how fast it is; tables generated",
    "docs/speed.png": "how cost grows with the number of vectors",
    "examples/notebook.py": "cells of a notebook",
    "indexer/bundled/LICENSES.md": "authors and licenses of the images and names",
    "indexer/bundled/README.md": "the bundled data: columns, split, the ten families of queries",
    "indexer/bundled/emoji-clip": "the trained model, an open_clip folder with its card",
    "indexer/bundled/emoji-generator": "the generator of pseudo-targets, a diffusers folder with its card",
    "indexer/bundled/emoji-inversion": "the network that makes pseudo-words for `emoji-clip`, with its card",
    "indexer/bundled/emoji.parquet": "10,577 images of 3,786 emoji with names, keywords and fields",
    "indexer/bundled/emojicir.parquet": "EmojiCIR's queries, targets and subsets",
    "indexer/bundled/change_texts.txt": "change sentences, among the queries that indexes are tuned by",
    "indexer/bundled/generic_texts.txt": "generic texts, whose mean is subtracted from text queries",
    "pipelines/synthesis/prompts/deictic.txt": "the words by which a rewritten question points at its image",
    "pipelines/synthesis/prompts/question.txt": "the prompt for a question about a passage",
    "pipelines/synthesis/prompts/rewrite.txt": "the prompt for pointing at the thing that a question names",
    "pipelines/pages/templates/base.html.j2": "the looks of every page",
    "pipelines/pages/templates/demo.html.j2": "the demo's short report: one screen, the best methods",
    "pipelines/pages/templates/demo_all.html.j2": "the demo's page of all questions, methods and numbers",
    "pipelines/pages/templates/demo_question.html.j2": "a question and each method's answer, on both pages of the demo",
    "pipelines/pages/templates/search.html.j2": "the page of one search",
    "pipelines/pages/templates/synthesis.html.j2": "the contact sheet of a synthesis",
    "retrieval/methods/weights.json": "each method's weights, with the split and the curve they come from",
    "retrieval/providers/language/prompts/caption.txt": "what captioners that can be asked are asked",
    "retrieval/providers/language/prompts/rewrite.txt": "how language models are asked to rewrite a caption",
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
        "tests/" + " " * 39 + "mirrors the packages; kinds are markers: compat, crash, differential, fuzz, stateful"
    )
    return "\n".join([*lines, "```"])


SECTIONS: dict[str, Callable[[], str]] = {**TABLES, "files": file_list}


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
        if path.name.startswith((".", "__pycache__")) or path.name == "py.typed" or path.suffix == ".pyc":
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
