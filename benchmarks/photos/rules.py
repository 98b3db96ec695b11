"""Rules for composed queries on product photos, from a shop's descriptions of its products.

There are three kinds of query, each a photo and a sentence:

* `same-model`: "this exact one, but in black". Right is the same model (same title without its colors, for the same
  gender, of the same type) in the requested color. Only models with at most `MODEL_SIZE` photos are used, since a title
  shared by more ("striped shirt") does not identify a model, and only if the model has two or more other colors, so
  that the photo alone does not determine the answer.
* `color`: "the same kind, but in red". Right is what has the reference's type and gender and the requested color.
* `type`: "shorts in this color". Right is what has the requested type and the reference's gender and color.

What might be right is *neutral* and left out of that query's ranking: the same for another gender, colors that shops
confuse (`NEAR`), and other photos of the reference's model if kind or color are requested. Products whose title names a
color other than their color field are left out entirely, and of byte-identical photos one remains.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from indexer.types import HelpfulEnum

Key = TypeVar("Key", bound=Hashable)

MODEL_SIZE = 8
"""Limit of photos of a model for `same-model` queries."""
MOST_TARGETS = 40
"""Limit of right answers; a `color` or `type` query with more is too unspecific."""
LEAST_OF_COLOR = 10
"""Least number of queries of a kind per color; rarer colors are left out."""

_FAMILIES = (
    ("blue", "navy blue", "turquoise blue", "teal"),
    ("grey", "charcoal", "silver", "steel", "grey melange", "metallic"),
    ("black", "charcoal", "navy blue"),
    ("white", "off white", "cream"),
    ("beige", "cream", "skin", "nude", "tan", "khaki", "off white", "taupe", "mushroom brown"),
    ("brown", "coffee brown", "tan", "copper", "bronze", "rust", "mushroom brown", "taupe", "khaki"),
    ("red", "maroon", "burgundy", "rust"),
    ("pink", "magenta", "rose", "peach", "mauve"),
    ("purple", "lavender", "mauve", "magenta", "burgundy"),
    ("yellow", "mustard", "gold", "fluorescent green", "lime green"),
    ("green", "olive", "sea green", "lime green", "fluorescent green", "khaki", "teal"),
    ("orange", "rust", "peach", "copper", "mustard"),
    ("gold", "copper", "bronze", "metallic"),
)
NEAR: Mapping[str, frozenset[str]] = {
    color: frozenset(chain.from_iterable(family for family in _FAMILIES if color in family)) - {color}
    for color in chain.from_iterable(_FAMILIES)
}
"""Colors that shops name differently: neither right nor wrong in place of each other."""
UNASKED = frozenset({"", "na", "multi", "metallic", "skin"})
"""Values of the color field that name no color."""
SHADES = frozenset({"dark", "light", "pale", "deep", "bright"})
_MORE = (
    "gray navy multicolor multicolored multicoloured violet indigo aqua ivory wine plum crimson coral fuchsia golden"
)
COLOR_WORDS = frozenset(
    {word for color in {*NEAR, *UNASKED, "multi"} for word in color.split()} - {"off", "sea", "na", "skin", ""}
) | frozenset(_MORE.split())
SPELLED: Mapping[str, frozenset[str]] = {"grey": frozenset({"gray"}), "gold": frozenset({"golden"})}


class Kind(HelpfulEnum):
    """What a query preserves and what it changes."""

    SAME_MODEL = "same-model"
    COLOR = "color"
    TYPE = "type"


SENTENCES: Mapping[Kind, tuple[str, ...]] = {
    Kind.SAME_MODEL: (
        "this exact one, but in {}",
        "the same one in {}",
        "the same model, only {}",
        "exactly this, in {} instead",
        "do you have this very one in {}?",
        "identical, just {}",
    ),
    Kind.COLOR: (
        "the same kind, but in {}",
        "something like this in {}",
        "one of these in {}",
        "the same sort of thing, {} instead",
        "like this, but {}",
        "I want this kind of item in {}",
    ),
    Kind.TYPE: (
        "{} in this color",
        "{} of the same color",
        "the color of this, but {}",
        "matching {} in the same color",
        "I like the color, show me {}",
        "in this color, but {} instead",
    ),
}


@dataclass(frozen=True)
class Product:
    """One photo of a product.

    Attributes:
        id: Id in the data set.
        title: Title in the shop.
        gender: Its intended wearers.
        type: Its type, such as `Tshirts`.
        color: Its color field, in lower case.
        digest: sha256 of the photo's bytes.
    """

    id: str
    title: str
    gender: str
    type: str
    color: str
    digest: str

    @property
    def model(self) -> tuple[str, str, str]:
        """What all colors of one model share: title without colors and plurals, gender, type."""
        words = (word for word in _words(self.title) if word not in COLOR_WORDS and word not in SHADES)
        return " ".join(word.removesuffix("s") for word in words), self.gender, self.type

    @property
    def consistent(self) -> bool:
        """Whether the title names no color other than that of the color field."""
        own = set(self.color.split())
        said = own.union(*(SPELLED.get(word, frozenset()) for word in own))
        return all(word in said for word in _words(self.title) if word in COLOR_WORDS)


@dataclass(frozen=True)
class RuleQuery:
    """A query and its qrels; all documents by id.

    Attributes:
        kind: The kind of query.
        reference: The reference photo.
        text: The sentence.
        color: Color of the targets, over which the measures are averaged.
        targets: Right answers.
        neutral: Neither right nor wrong.
    """

    kind: Kind
    reference: str
    text: str
    color: str
    targets: tuple[str, ...]
    neutral: tuple[str, ...]


def split_of(products: Iterable[Product]) -> dict[str, str]:
    """The part of each product, by id: `train` (60 %), `validation` (15 %) or `test` (25 %), assigned by model.

    Models that share a photo are in one part, so that no model or photo is in two.
    """
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        while parent.setdefault(node, node) != node:
            parent[node] = node = parent[parent[node]]
        return node

    found = list(products)
    for product in found:
        one, other = root(product.model), root(product.digest)
        if one != other:
            parent[max(one, other, key=repr)] = min(one, other, key=repr)
    return {product.id: _part(root(product.model)) for product in found}


def _part(node: object) -> str:
    share = _number(repr(node)) / 2**64
    return "train" if share < 0.6 else "validation" if share < 0.75 else "test"


def gallery_of(products: Iterable[Product]) -> list[Product]:
    """The gallery, in order of id: consistent products, one for each photo."""
    first: dict[str, Product] = {}
    for product in sorted(products, key=lambda each: each.id):
        first.setdefault(product.digest, product)
    return [product for product in first.values() if product.consistent]


def queries_of(gallery: Sequence[Product], kind: Kind, most: int, said: Mapping[str, str]) -> list[RuleQuery]:
    """Queries of one kind, up to a limit, spread over the requested colors; the same ones in every run.

    Args:
        gallery: From `gallery_of`, of one part.
        kind: The kind of query.
        most: Limit of queries.
        said: The words for each type, such as `{"Tshirts": "a T-shirt"}`; other types get no queries.
    """
    found = {
        Kind.SAME_MODEL: lambda: _same_model(gallery),
        Kind.COLOR: lambda: _same_kind(gallery),
        Kind.TYPE: lambda: _same_color(gallery, said),
    }[kind]()
    by_color: dict[str, list[RuleQuery]] = defaultdict(list)
    for query in sorted(found, key=lambda each: _number(f"{each.kind} {each.reference} {each.text}")):
        by_color[query.color].append(query)
    turns = [
        (turn, color, query)
        for color, own in by_color.items()
        if len(own) >= LEAST_OF_COLOR
        for turn, query in enumerate(own)
    ]
    return [query for _, _, query in sorted(turns, key=lambda each: each[:2])[:most]]


def _same_model(gallery: Sequence[Product]) -> Iterator[RuleQuery]:
    models: dict[tuple[str, str, str], list[Product]] = defaultdict(list)
    others: dict[tuple[str, str], list[Product]] = defaultdict(list)
    for product in gallery:
        models[product.model].append(product)
        others[product.model[0], product.type].append(product)
    for model, own in models.items():
        colors = Counter(product.color for product in own)
        if len(own) > MODEL_SIZE or len(colors) < 3:
            continue
        for reference in own:
            for color in sorted(colors.keys() - {reference.color} - UNASKED - NEAR.get(reference.color, frozenset())):
                targets = [product.id for product in own if product.color == color]
                near = [product for product in own if product.color in NEAR.get(color, ())]
                unisex = [product for product in others[model[0], model[2]] if product.gender != reference.gender]
                yield _query(Kind.SAME_MODEL, reference, color, color, targets, [*near, *unisex])


def _same_kind(gallery: Sequence[Product]) -> Iterator[RuleQuery]:
    kinds = _by(gallery, lambda each: each.type)
    for same in kinds.values():
        cells = _by(same, lambda each: (each.gender, each.color))
        for reference in same:
            for color in sorted({color for gender, color in cells if gender == reference.gender}):
                if color in UNASKED or color == reference.color or color in NEAR.get(reference.color, ()):
                    continue
                if not _picked(reference, color):
                    continue
                targets = [each.id for each in cells[reference.gender, color] if each.model != reference.model]
                neutral = [
                    each
                    for each in same
                    if each.color in NEAR.get(color, ())
                    or (each.color == color and each.gender != reference.gender)
                    or each.model == reference.model
                ]
                if 1 <= len(targets) <= MOST_TARGETS:
                    yield _query(Kind.COLOR, reference, color, color, targets, neutral)


def _same_color(gallery: Sequence[Product], said: Mapping[str, str]) -> Iterator[RuleQuery]:
    colored = _by(gallery, lambda each: each.color)
    kinds = _by(gallery, lambda each: each.type)
    for color, same in colored.items():
        if color in UNASKED:
            continue
        cells = _by(same, lambda each: (each.gender, each.type))
        for reference in same:
            for kind in sorted({kind for gender, kind in cells if gender == reference.gender}):
                if kind == reference.type or kind not in said or not _picked(reference, kind):
                    continue
                targets = [each.id for each in cells[reference.gender, kind]]
                neutral = [
                    each
                    for each in kinds[kind]
                    if each.color in NEAR.get(color, ()) or (each.color == color and each.gender != reference.gender)
                ]
                if len(targets) <= MOST_TARGETS:
                    yield _query(Kind.TYPE, reference, said[kind], color, targets, neutral)


def _query(
    kind: Kind, reference: Product, said: str, color: str, targets: Sequence[str], neutral: Sequence[Product]
) -> RuleQuery:
    sentences = SENTENCES[kind]
    sentence = sentences[_number(f"{reference.id} {said}") % len(sentences)]
    aside = {each.id for each in neutral} - {reference.id, *targets}
    return RuleQuery(kind, reference.id, sentence.format(said), color, tuple(sorted(targets)), tuple(sorted(aside)))


def _picked(reference: Product, asked: str) -> bool:
    """One of thirty: there are hundreds of thousands of pairs of a photo and a color or type."""
    return _number(f"pick {reference.id} {asked}") % 30 == 0


def _by(products: Iterable[Product], key: Callable[[Product], Key]) -> dict[Key, list[Product]]:
    found: dict[Key, list[Product]] = defaultdict(list)
    for product in products:
        found[key(product)].append(product)
    return found


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
