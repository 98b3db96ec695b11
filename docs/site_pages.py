"""What the site has besides the pages of docs/: README and its neighbors, the examples, the API reference.

MkDocs calls the functions `on_*`. The pages stay where a forge shows them; here their links are turned into the site's.

What this module does not know: the order of pages, and looks (`mkdocs.yml`).
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
HOME = "index.md"

FROM_ROOT = {
    "README.md": HOME,
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "LOG.md": "project/log.md",
    "SECURITY.md": "project/security.md",
}
"""Where a page of the repository's root stands on the site."""

REFERENCE = {
    "indexer": "Collections, documents, models: the names of `indexer`. `import underdrawing as ud` has them all, too.",
    "retrieval": "Queries, methods, results: the names of `retrieval`. `import underdrawing as ud` has them all, too.",
    "retrieval.metrics": "Measures of rankings, as pure functions.",
    "indexer.errors": "Every error that is raised on purpose; all are `UnderdrawingError`s.",
}
"""The modules of the API reference, each a page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    made = {FROM_ROOT[name]: (ROOT / name).read_text(encoding="utf-8") for name in FROM_ROOT if (ROOT / name).exists()}
    made["examples.md"] = examples()
    made |= {f"reference/{name}.md": "\n".join(reference(name, text)) for name, text in REFERENCE.items()}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    origin = next((name for name, path in FROM_ROOT.items() if path == here), f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        target = (ROOT / origin).parent.joinpath(match["path"]).resolve()
        inside = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        uri = FROM_ROOT.get(inside) or inside.removeprefix("docs/")
        if not inside or (inside not in FROM_ROOT and not inside.startswith("docs/")):
            return f"`{inside or match['path']}`" if match["text"].strip("`") == match["path"] else match["text"]
        return f"[{match['text']}]({'../' * here.count('/')}{uri}{match['anchor'] or ''})"

    return re.sub(r"\[(?P<text>[^]]*)\]\((?![a-z]+:)(?P<path>[^)#\s]+)(?P<anchor>#[^)]*)?\)", turned, markdown)


def examples() -> str:
    """A page of the programs in examples/."""
    parts = ["# Examples", "Short programs to copy. They are run by the tests as they stand."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        told = ast.get_docstring(ast.parse(text)) or "Python cells, for editors that run them one by one."
        parts += [f"## {path.stem.replace('_', ' ')}", f"`examples/{path.name}`: {told.splitlines()[0]}"]
        parts += [f"```python\n{text}```"]
    return "\n\n".join(parts)


def reference(name: str, text: str) -> Iterator[str]:
    """The page of a module: its public names, each described by its docstring."""
    module = importlib.import_module(name)
    yield f"# {name}\n\n{text}\n"
    if not hasattr(module, "__all__"):
        yield f"::: {name}\n    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n"
        return
    for public in sorted(module.__all__, key=str.casefold):
        home = getattr(getattr(module, public), "__module__", name)
        if home not in REFERENCE:  # else it is described there
            yield f"::: {home}.{public}\n"
