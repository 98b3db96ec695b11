"""The method `hopeless` and the re-ranker `moody`: what they raise is their own."""

from __future__ import annotations

from underdrawing_example.method import Least


class Hopeless(Least):
    name = "hopeless"

    def compose(self, resolved, weights, space):
        raise RuntimeError("no hope")


class Moody:
    def rerank(self, query, candidates, deadline):
        raise RuntimeError("not today")


def load(rest: str, *, device: str) -> Moody:
    return Moody()
