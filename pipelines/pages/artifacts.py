"""Artifacts of a method, ready to be shown in the same way by pages, tables and the demo.

Any artifact can be shown, also one of another package's method: its images are the files under `paths`, its text is
its `sentence`, and what else it has follows in words. What is made often has words of its own.

What this module does not know: methods, and how anything was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from indexer.types import JsonValue
from retrieval.results import Results

Artifact = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Shown:
    """An artifact.

    Attributes:
        name: What it is, in words.
        images: Its image files.
        text: The text that was made; empty for none.
        how: How it was made; may be empty.
    """

    name: str
    images: tuple[Path, ...]
    text: str
    how: str

    @property
    def line(self) -> str:
        """All of it in one line, with the path of the first image."""
        first, more = self.images[:1], len(self.images) - 1
        files = [f"{path}" + (f" and {more} more" if more else "") for path in first]
        if self.text:
            return f"{self.name}: {self.text}" + (f" ({self.how})" if self.how else "")
        return ": ".join([self.name, *([self.how] if self.how else []), *files])


def shown_artifacts(results: Results) -> list[Shown]:
    """The artifacts of an answer, in order."""
    return [_shown(name, artifact, results) for name, artifact in results.artifacts.items()]


def image_files(results: Results, name: str = "pseudo_target") -> list[Path]:
    """The image files of an artifact; none where there is none."""
    return list(_images(results.artifacts.get(name, {})))


def _shown(name: str, artifact: Artifact, results: Results) -> Shown:
    label, how = _WORDS.get(name, (name.replace("_", " "), _in_words))
    return Shown(label, _images(artifact), str(artifact.get("sentence") or ""), how(artifact, results))


def _images(artifact: Artifact) -> tuple[Path, ...]:
    paths = artifact.get("paths")
    return tuple(Path(str(path)) for path in paths) if isinstance(paths, list) else ()


def _in_words(artifact: Artifact, _: Results) -> str:
    """What an artifact has besides images and text."""
    told: list[str] = []
    for name, value in artifact.items():
        if name not in ("path", "paths", "sentence") and value is not None:
            told.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(told)


def _generated(artifact: Artifact, results: Results) -> str:
    took = f"generated in {results.took_ms.get('draw', 0):,.0f} ms"
    when = "from the cache" if artifact["cached"] else took
    return f"{when}, seed {artifact['seed']}, {artifact['steps']} steps, guidance {artifact['guidance']}"


def _rewritten(artifact: Artifact, _: Results) -> str:
    if artifact["caption"] is None:
        return ""
    by = f"by {artifact['rewriter']}" if artifact["rewriter"] else "caption and text side by side"
    of = f"by {artifact['captioner']}" if artifact["captioner"] else "as given"
    return f"{by}; the reference, {of}: {artifact['caption']}" + ("; from the cache" if artifact["cached"] else "")


_WORDS: Final[Mapping[str, tuple[str, Callable[[Any, Results], str]]]] = {
    "pseudo_target": ("pseudo-target", _generated),
    "caption": ("searched for", _rewritten),
}
