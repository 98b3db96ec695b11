"""The tuned weights of each method, as data with their source.

`weights.json` maps an embedder's name to methods, and a method to its `weights`, the `source` they come from,
and, where a sweep made them, the `split`, the `metric`, the `command` and the `curve`: a list of [weights,
score] pairs. The entry `default` serves embedders that have none of their own.

What this module does not know: how weights are tuned and what they do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from indexer.embed.base import without_options
from retrieval.query import Weights

FILE = Path(__file__).with_name("weights.json")
DEFAULT = "default"


@dataclass(frozen=True)
class Tuned:
    """Weights and where they come from, in words."""

    weights: Weights
    source: str


def load_weights(model: str, name: str, defaults: Weights | None = None) -> Tuned:
    """The weights of a method for a model: its own, or the defaults.

    Args:
        model: An embedder's name, such as `bundled:emoji-clip`; options after it, such as `?draft=2`, change nothing.
        name: A method's `tuned`, such as `sum` or `cig-embed`.
        defaults: A method's `defaults`, for one that has no entry here.
    """
    table = _table()
    entry = table.get(without_options(model), {}).get(name) or table[DEFAULT].get(name)
    if entry is None:
        return Tuned(defaults or Weights(), "the method's own defaults")
    return Tuned(Weights(**entry["weights"]), entry["source"])


def preferred(model: str, suits: Callable[[str], bool]) -> str | None:
    """The method that did best when a model's weights were tuned; None if no method was tuned.

    Args:
        model: An embedder's name.
        suits: Whether a method can be chosen, by its name.
    """
    scores = {
        name: max(score for _, score in entry["curve"])
        for name, entry in _table().get(without_options(model), {}).items()
        if "curve" in entry and suits(name)
    }
    return max(scores, key=lambda name: scores[name]) if scores else None


@cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    table: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return table
