"""What Unicode says about each emoji (names, groups, skin tones, genders), and the split of the corpus.

This module reads the JSON files of the `emojibase-data` package. It does not know any image: `build.py` knows which
vendor has which concept and how images are encoded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "validation", "test"]

TONES = {1: "light", 2: "medium-light", 3: "medium", 4: "medium-dark", 5: "dark"}
SHORTCODE_PRESETS = ("cldr", "emojibase", "github", "iamcal")  # iamcal is the set that Slack uses
COLOURED_SHAPES = ("heart", "circle", "square", "book")
COLOURS = frozenset("red pink orange yellow green blue purple brown black grey white".split()) | {"light blue"}

# Neither a field of the data set nor the first word of the name gives the gender of these.
NAMED_GENDERS = {
    "prince": "man", "princess": "woman", "person with crown": "person", "Santa Claus": "man",
    "Mrs. Claus": "woman", "Mx Claus": "person", "merman": "man", "mermaid": "woman", "merperson": "person",
    "old man": "man", "old woman": "woman", "older person": "person", "boy": "man", "girl": "woman",
    "child": "person", "pregnant man": "man", "pregnant woman": "woman", "pregnant person": "person",
    "deaf man": "man", "deaf woman": "woman", "deaf person": "person", "breast-feeding": "woman",
}  # fmt: skip
# Subgroups in which a concept without a gender is a gender-neutral person, not a thing.
PERSON_SUBGROUPS = frozenset(
    (
        "person",
        "person-gesture",
        "person-role",
        "person-fantasy",
        "person-activity",
        "person-sport",
        "person-resting",
    )
)
NOT_ONE_PERSON = frozenset(("baby", "baby angel"))


@dataclass(frozen=True)
class Concept:
    """One Unicode emoji, independent of vendors."""

    hexcode: str
    emoji: str
    text: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]
    wordings: tuple[str, ...]
    skin_tone: tuple[str, ...]
    gender: str | None
    base: str
    base_text: str
    version: float


def canonical(code: str) -> str:
    """The hexcode without variation selectors: the packages disagree about where they belong."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def phrase(shortcode: str) -> str:
    """The words of a shortcode; `wave_tone1-5` becomes `wave light skin tone dark skin tone`."""
    match = re.fullmatch(r"(.*?)(?:_?tone([1-5])(?:-([1-5]))?)?", shortcode)
    name, *tones = match.groups("") if match else (shortcode,)
    name = {"+1": "plus one", "-1": "minus one"}.get(name, name)
    words = [
        name.replace("_", " ").replace("-", " "),
        *(f"{TONES[int(tone)]} skin tone" for tone in tones if tone),
    ]
    return " ".join(" ".join(words).split())


def plain(text: str) -> str:
    """The text in lower case without punctuation, for comparing wordings."""
    return " ".join(re.findall(r"[\w#*]+", text.casefold()))


def distinct_wordings(label: str, others: Iterable[str]) -> tuple[str, ...]:
    """The other names, each once, without those that only respell the label."""
    seen = {plain(label), ""}
    kept = []
    for other in others:
        if plain(other) not in seen:
            seen.add(plain(other))
            kept.append(other)
    return tuple(kept)


def gender_of(entry: Mapping[str, Any], base: Mapping[str, Any], subgroup: str) -> str | None:
    """`woman`, `man` or `person` for a concept of one person (or of persons of one gender), else None."""
    named = NAMED_GENDERS.get(base["label"])
    if named:
        return named
    if "gender" in entry or "gender" in base:
        return ("woman", "man")[entry.get("gender", base.get("gender"))]
    first = re.split(r"[\s:]", base["label"])[0]
    if first in ("woman", "man", "person") and subgroup in PERSON_SUBGROUPS:
        return str(first)
    if subgroup in PERSON_SUBGROUPS and base["label"] not in NOT_ONE_PERSON and not first.startswith("people"):
        return "person"
    return None


def tones_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The skin tones of an entry, in the order of the people in its name."""
    tone = entry.get("tone", [])
    return tuple(TONES[number] for number in ([tone] if isinstance(tone, int) else tone))


def read_concepts(package: Path) -> dict[str, Concept]:
    """All concepts of `emojibase-data`, by canonical hexcode, in CLDR order."""
    groups = _read(package / "meta/groups.json")
    british = {entry["hexcode"]: entry["label"] for entry in _with_skins(_read(package / "en-gb/data.json"))}
    presets = [_read(package / f"en/shortcodes/{preset}.json") for preset in SHORTCODE_PRESETS]
    concepts = []
    for base in _read(package / "en/data.json"):
        for entry in (base, *base.get("skins", [])):
            subgroup = groups["subgroups"].get(str(entry.get("subgroup")), "")
            codes = [code for preset in presets for code in _as_list(preset.get(entry["hexcode"]))]
            concept = Concept(
                hexcode=entry["hexcode"],
                emoji=entry["emoji"],
                text=entry["label"],
                group=groups["groups"].get(str(entry.get("group")), "component"),
                subgroup=subgroup or "regional-indicator",
                keywords=tuple(entry.get("tags") or base.get("tags") or ()),
                wordings=distinct_wordings(entry["label"], [british[entry["hexcode"]], *map(phrase, codes)]),
                skin_tone=tones_of(entry),
                gender=gender_of(entry, base, subgroup),
                base=base["hexcode"],
                base_text=base["label"],
                version=float(entry["version"]),
            )
            concepts.append((entry.get("order", 0), concept))
    return {canonical(concept.hexcode): concept for _, concept in sorted(concepts, key=lambda pair: pair[0])}


def _read(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))


def _with_skins(entries: Sequence[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for entry in entries:
        yield entry
        yield from entry.get("skins", [])


def _as_list(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def shape_and_colour(text: str) -> tuple[str, str] | None:
    """(`heart`, `light blue`) for `light blue heart`; None for a name that is not a color and a shape."""
    words = text.replace(" large ", " ")
    for shape in COLOURED_SHAPES:
        colour = words.removesuffix(f" {shape}")
        if colour != words and colour in COLOURS:
            return shape, colour
    return None


def stratum(concept: Concept) -> tuple[str, bool]:
    """The stratum of the concept, and whether it is small (and held out more densely)."""
    number = int(concept.hexcode.split("-")[0], 16)
    if 0x1F550 <= number <= 0x1F567:
        return "clock", True
    if 0x1F311 <= number <= 0x1F318:
        return "moon phase", True
    if shape_and_colour(concept.text):
        return f"coloured {concept.text.rsplit(' ', 1)[1]}", True
    if concept.subgroup == "arrow":
        return ("compass arrow" if re.match(r"(up|down|left|right)(-\w+)? arrow$", concept.text) else "arrow"), True
    if concept.subgroup == "cat-face":
        return "cat face", True
    if concept.subgroup.startswith("face-"):
        return "face", True
    if concept.base_text in ("person", "man", "woman") or re.search(r": (.* hair|bald|beard)$", concept.base_text):
        return f"portrait {concept.base}", False
    if concept.skin_tone or concept.group == "people-body":
        return f"person {concept.base}", False
    return concept.subgroup, False


def rank(text: str) -> str:
    """A sort key that is arbitrary, but the same on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()


def assign_splits(concepts: Sequence[Concept], same: Iterable[Sequence[str]] = ()) -> dict[str, Split]:
    """The split of every hexcode, about 80/10/10, the same on every machine.

    Concepts are ordered by the hash of their stratum and then of their hexcode, and every tenth goes to each held-out
    split; so of the six skin tones of a person, each held-out split gets at most one. A small family is counted
    separately, with every eighth, so that both splits have targets of it. Concepts listed together in `same` share one
    split (that of the first): a vendor has one image for them, which must not be in training and held out.
    """
    leader = {code: group[0] for group in same for code in group}
    strata: dict[tuple[str, bool], list[str]] = {}
    for concept in concepts:
        if leader.get(concept.hexcode, concept.hexcode) == concept.hexcode:
            strata.setdefault(stratum(concept), []).append(concept.hexcode)
    splits: dict[str, Split] = {}
    running = 0
    for name, small in sorted(strata, key=lambda key: rank(key[0])):
        for place, code in enumerate(sorted(strata[name, small], key=rank)):
            position, period = (place, 8) if small else (running, 10)
            held_out: dict[int, Split] = {2: "validation", 6: "test"}
            splits[code] = held_out.get(position % period, "train")
            running += not small
    return splits | {code: splits[first] for code, first in leader.items()}
