"""The ten rules of EmojiCIR: pairs of emoji that differ in one thing that a sentence can express.

Each rule takes the concepts of the corpus and yields edits between concepts. This module does not know vendors (except
`style`), images, splits or the number of queries; `build_queries.py` turns edits into queries.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from benchmarks.emoji import words
from benchmarks.emoji.concepts import TONES, Concept, rank, shape_and_colour

TONE_ORDER = tuple(TONES.values())
GROUP_NOUN = re.compile(r"^(women|woman|men|man|person)\b ?")

# Triples and pairs whose names share no words: name -> (what they share, whatever the gender).
NAMED_STEMS = {
    "prince": "crown", "princess": "crown", "person with crown": "crown", "Santa Claus": "claus",
    "Mrs. Claus": "claus", "Mx Claus": "claus", "merman": "mer", "mermaid": "mer", "merperson": "mer",
    "old man": "old", "old woman": "old", "older person": "old", "boy": "child", "girl": "child",
    "child": "child", "pregnant man": "pregnant", "pregnant woman": "pregnant", "pregnant person": "pregnant",
    "deaf man": "deaf", "deaf woman": "deaf", "deaf person": "deaf",
}  # fmt: skip

ARROWS = {
    "up": 0, "up-right": 45, "right": 90, "down-right": 135, "down": 180, "down-left": 225, "left": 270,
    "up-left": 315,
}  # fmt: skip
# Name -> (what is shown, the angle it points to, clockwise from up).
POINTING: dict[str, tuple[str, int]] = {
    **{f"{name} arrow": ("arrow", angle) for name, angle in ARROWS.items()},
    **{f"backhand index pointing {w}": ("backhand", ARROWS[w]) for w in ("up", "right", "down", "left")},
    "thumbs up": ("thumb", 0), "thumbs down": ("thumb", 180), "right-facing fist": ("fist", 90),
    "left-facing fist": ("fist", 270), "rightwards hand": ("hand", 90), "leftwards hand": ("hand", 270),
    "rightwards pushing hand": ("pushing hand", 90), "leftwards pushing hand": ("pushing hand", 270),
    "red triangle pointed up": ("triangle", 0), "red triangle pointed down": ("triangle", 180),
    "upwards button": ("button", 0), "play button": ("button", 90), "downwards button": ("button", 180),
    "reverse button": ("button", 270), "fast up button": ("fast button", 0),
    "fast-forward button": ("fast button", 90), "fast down button": ("fast button", 180),
    "fast reverse button": ("fast button", 270), "next track button": ("track button", 90),
    "last track button": ("track button", 270),
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """One change from a concept to another: its words, and similar concepts.

    `change` names the change, so that edits with the same words share it. `siblings` are hexcodes in order of
    preference. In `style` the vendor changes and the concept stays; then `vendor` is the target's.
    """

    family: str
    reference: str
    target: str
    change: str
    phrase: str
    siblings: tuple[str, ...]
    vendor: str | None = None


def shuffled(codes: Iterable[str], salt: str) -> list[str]:
    """The hexcodes in an arbitrary order that is the same on every machine."""
    return sorted(codes, key=lambda code: rank(f"{salt}|{code}"))


def coin(*parts: str) -> bool:
    """Heads or tails, by hash."""
    return int(rank("|".join(parts))[:8], 16) % 2 == 0


def grouped(concepts: Iterable[Concept], key: Callable[[Concept], object]) -> dict[object, list[Concept]]:
    """Concepts by key; those whose key is None are left out."""
    groups: dict[object, list[Concept]] = defaultdict(list)
    for concept in concepts:
        if (found := key(concept)) is not None:
            groups[found].append(concept)
    return groups


def stem_of(concept: Concept) -> str | None:
    """A gendered concept without its gender; None for a concept without one."""
    if concept.gender is None:
        return None
    if concept.base_text in NAMED_STEMS:
        return NAMED_STEMS[concept.base_text]
    return GROUP_NOUN.sub("", concept.base_text)


def skin_tone(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same emoji in another skin tone, named absolutely or in shades relative to the reference's."""
    for base, members in grouped(concepts, lambda concept: concept.base).items():
        couple = any(len(member.skin_tone) > 1 for member in members)
        phrases = words.COUPLE_TONE_PHRASES if couple else words.TONE_PHRASES
        plain = [member for member in members if len(member.skin_tone) <= 1]
        mixed = shuffled((member.hexcode for member in members if len(member.skin_tone) > 1), str(base))
        for reference in members if len(plain) > 1 else ():
            for target in plain:
                if target is reference:
                    continue
                tone = (*target.skin_tone, "none")[0]
                change, phrase = f"{'couple' if couple else 'tone'}:{tone}", phrases[tone]
                steps = _shades(reference, target)
                if steps in words.TONE_STEPS and not couple and coin(reference.hexcode, target.hexcode):
                    change, phrase = f"shade:{steps:+d}", words.TONE_STEPS[steps]
                siblings = (*(member.hexcode for member in plain), *mixed)
                yield Edit("skin_tone", reference.hexcode, target.hexcode, change, phrase, siblings)


def _shades(reference: Concept, target: Concept) -> int:
    if len(reference.skin_tone) != 1 or len(target.skin_tone) != 1:
        return 0
    return TONE_ORDER.index(target.skin_tone[0]) - TONE_ORDER.index(reference.skin_tone[0])


def gender(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same role, activity and skin tone with another gender."""
    for stem, members in grouped(concepts, stem_of).items():
        for reference, target in permutations(members, 2):
            if reference.skin_tone == target.skin_tone and reference.gender != target.gender:
                phrase = words.GENDER_PHRASES[str(target.gender)]
                near = [member.hexcode for member in members if member.skin_tone == reference.skin_tone]
                rest = shuffled((member.hexcode for member in members), f"{stem}{reference.hexcode}")
                siblings = tuple(dict.fromkeys((*near, *rest)))
                yield Edit("gender", reference.hexcode, target.hexcode, f"gender:{phrase}", phrase, siblings)


def hair(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same head with different hair (or none, or a beard)."""
    heads = [concept for concept in concepts if stem_of(concept) in ("", *words.HAIR_PHRASES)]
    for members in grouped(heads, lambda concept: (concept.gender, concept.skin_tone)).values():
        for reference, target in permutations(members, 2):
            phrase = words.HAIR_PHRASES.get(str(stem_of(target)))
            if phrase:
                siblings = tuple(member.hexcode for member in members)
                yield Edit("hair", reference.hexcode, target.hexcode, f"hair:{phrase}", phrase, siblings)


def _other_stem(concepts: Sequence[Concept], family: str, phrases: Mapping[str, str]) -> Iterator[Edit]:
    """People with the same gender and skin tone, from one of the stems to another."""
    people = [concept for concept in concepts if stem_of(concept) in phrases]
    by_stem = grouped(people, stem_of)
    for members in grouped(people, lambda concept: (concept.gender, concept.skin_tone)).values():
        codes = [member.hexcode for member in members]
        for reference, target in permutations(members, 2):
            stem = str(stem_of(target))
            same_person = shuffled(codes, reference.hexcode + target.hexcode)[:7]
            same_role = shuffled((member.hexcode for member in by_stem[stem]), reference.hexcode)[:4]
            siblings = (*same_person, *same_role)
            yield Edit(family, reference.hexcode, target.hexcode, f"{family}:{stem}", phrases[stem], siblings)


def role(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same gender and skin tone in another profession or activity."""
    yield from _other_stem(concepts, "role", words.ROLE_PHRASES)


def expression(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """Another expression of a face or a person, one more feature, or the same feeling on a cat."""
    faces = [c for c in concepts if c.subgroup.startswith("face-") and c.subgroup != "face-costume"]
    cats = [c for c in concepts if c.subgroup == "cat-face"]
    named = {c.text: c for c in concepts if c.subgroup in ("monkey-face", "cat-face") or c.subgroup.startswith("face-")}

    def edit(reference: Concept, target: Concept, phrase: str) -> Edit:
        kind = target.subgroup
        alike = shuffled((c.hexcode for c in concepts if c.subgroup == kind), reference.hexcode + target.hexcode)
        rest = shuffled((c.hexcode for c in faces), reference.hexcode + target.hexcode)
        siblings = (*alike[:6], *rest[:6])
        return Edit("expression", reference.hexcode, target.hexcode, f"look:{phrase}", phrase, siblings)

    for kind in (faces, cats):
        for reference, target in permutations(kind, 2):
            if target.text in words.EXPRESSION_PHRASES:
                yield edit(reference, target, words.EXPRESSION_PHRASES[target.text])
    for face, cat in words.CATS.items():
        yield edit(named[face], named[cat], words.AS_CAT)
        if cat != "pouting cat":  # it could match any of the angry faces
            yield edit(named[cat], named[face], words.AS_FACE)
    for before, after, phrase in words.FEATURES:
        yield edit(named[before], named[after], phrase)
    yield from _other_stem(concepts, "expression", words.GESTURE_PHRASES)


def shape_of(concept: Concept) -> tuple[str, str] | None:
    """(shape, color) of an emoji that exists in several colors and differs in nothing else."""
    if concept.text == "closed book":
        return "book", "red"
    match = re.fullmatch(r"(large|small) (orange|blue) (diamond)", concept.text)
    if match:
        return f"{match[1]} diamond", match[2]
    things = "(?:medium|medium-small|small) square|square button|apple|flag|question mark|exclamation mark"
    match = re.fullmatch(f"(black|white|red|green) ({things})", concept.text)
    return (match[2], match[1]) if match else shape_and_colour(concept.text)


def colour(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same shape in another color, or the same color in another shape."""
    shapes = {concept.hexcode: found for concept in concepts if (found := shape_of(concept))}
    for reference, target in permutations(shapes, 2):
        (shape, tint), (new_shape, new_tint) = shapes[reference], shapes[target]
        same_shape = [code for code in shapes if shapes[code][0] == new_shape]
        siblings = tuple(shuffled(same_shape, reference)[:8])
        if (new_shape, new_tint) == ("heart", "red"):
            continue  # the heart suit and others are red hearts too
        if shape == new_shape:
            yield Edit("colour", reference, target, f"colour:{new_tint}", f"in {new_tint}", siblings)
        elif tint == new_tint and {shape, new_shape} <= words.SHAPE_PHRASES.keys():
            tinted = [code for code in shapes if shapes[code][1] == tint]
            phrase = words.SHAPE_PHRASES[new_shape]
            yield Edit("colour", reference, target, f"shape:{new_shape}", phrase, (*siblings[:6], *tinted))


def clock(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The clock face some time later or earlier."""
    hours = {}
    for concept in concepts:
        number = int(concept.hexcode.split("-")[0], 16)
        if 0x1F550 <= number <= 0x1F567:
            half = number >= 0x1F55C
            hours[((number - (0x1F55C if half else 0x1F550) + 1) * 2 + half) % 24] = concept.hexcode
    for time, reference in hours.items():
        for steps, phrase in words.CLOCK_PHRASES.items():
            if target := hours.get((time + steps) % 24):
                near = [hours.get((time + steps + offset) % 24) for offset in (1, -1, 2, -2, 12)]
                siblings = tuple(code for code in (target, *near) if code)
                siblings += tuple(shuffled(hours.values(), reference + target))
                yield Edit("clock", reference, target, f"halves:{steps:+d}", phrase, siblings)


def _pointing(concept: Concept) -> tuple[str, int] | None:
    if concept.base_text in POINTING:
        return POINTING[concept.base_text]
    if concept.base_text.endswith(": facing right"):
        return f"figure {concept.base_text.removesuffix(': facing right')}", 90
    return f"figure {concept.base_text}", 270


def direction(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same thing pointing or facing another way, named absolutely or by the rotation."""
    right = {c.base_text.removesuffix(": facing right") for c in concepts if c.base_text.endswith(": facing right")}
    movable = [c for c in concepts if c.base_text in POINTING or c.base_text.removesuffix(": facing right") in right]
    angles = {concept.hexcode: found for concept in movable if (found := _pointing(concept))}
    for key, members in grouped(movable, lambda c: (angles[c.hexcode][0], c.skin_tone)).items():
        everyone = [c.hexcode for c in movable if angles[c.hexcode][0] == angles[members[0].hexcode][0]]
        for reference, target in permutations(members, 2):
            shape, angle = angles[target.hexcode]
            turn = (angle - angles[reference.hexcode][1]) % 360
            if shape.startswith("figure"):
                phrases = (words.FACING_OTHER_WAY, words.FACING_PHRASES[angle])
            else:
                phrases = (words.TURN_PHRASES[turn], words.POINTING_PHRASES[angle])
            others = shuffled(everyone, f"{key}{reference.hexcode}")
            siblings = tuple(dict.fromkeys((*(member.hexcode for member in members), *others)))
            for phrase in phrases:
                yield Edit("direction", reference.hexcode, target.hexcode, f"way:{phrase}", phrase, siblings)


def moon_phase(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The moon some phases later or earlier, mirrored, or with and without a face."""
    moons = {c.text: c.hexcode for c in concepts if re.search(r"moon( face)?$", c.text) and c.subgroup == "sky-weather"}
    codes = sorted(code for text, code in moons.items() if 0x1F311 <= int(code, 16) <= 0x1F318)

    def edit(reference: str, target: str, phrase: str) -> Edit:
        siblings = tuple(shuffled(moons.values(), reference + target))
        return Edit("moon_phase", reference, target, f"moon:{phrase}", phrase, siblings)

    for place, reference in enumerate(codes):
        for steps, phrase in words.MOON_PHRASES.items():
            yield edit(reference, codes[(place + steps) % 8], phrase)
        if place % 4:
            yield edit(reference, codes[-place % 8], words.MOON_MIRRORED)
    for text, code in moons.items():
        if face := moons.get(f"{text} face"):
            yield edit(code, face, words.MOON_FACE)
            if "quarter" not in text:  # these two look like crescents
                yield edit(face, code, words.MOON_PLAIN)


def style(concepts: Sequence[Concept]) -> Iterator[Edit]:
    """The same emoji in another vendor's style."""
    by_base = grouped(concepts, lambda concept: concept.base)
    neighbours = {}
    for members in grouped(concepts, lambda concept: concept.subgroup).values():
        bases = list(dict.fromkeys(member.base for member in members))
        for place, base in enumerate(bases):
            neighbours[base] = bases[max(0, place - 4) : place + 5]
    for concept in concepts:
        same = shuffled((member.hexcode for member in by_base[concept.base]), concept.hexcode)[:4]
        siblings = tuple(dict.fromkeys((concept.hexcode, *same, *neighbours[concept.base])))
        for vendor, phrase in words.STYLE_PHRASES.items():
            yield Edit("style", concept.hexcode, concept.hexcode, f"style:{vendor}", phrase, siblings, vendor)


RULES: Mapping[str, Callable[[Sequence[Concept]], Iterator[Edit]]] = {
    "skin_tone": skin_tone, "gender": gender, "hair": hair, "role": role, "expression": expression,
    "colour": colour, "clock": clock, "direction": direction, "moon_phase": moon_phase, "style": style,
}  # fmt: skip
