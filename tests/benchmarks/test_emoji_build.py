"""The functions that build the emoji corpus and EmojiCIR, on small made-up data.

What these tests do not know: the committed files (`test_emoji_data.py`) and the network.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks.emoji import build as build_emoji
from benchmarks.emoji import build_queries as build_emojicir
from benchmarks.emoji import families as emojicir_families
from benchmarks.emoji.build_queries import Candidate, Corpus, Query
from benchmarks.emoji.concepts import (
    Concept,
    assign_splits,
    canonical,
    distinct_wordings,
    gender_of,
    phrase,
    shape_and_colour,
    stratum,
    tones_of,
)
from benchmarks.emoji.families import Edit
from benchmarks.emoji.words import TEMPLATES


def concept(hexcode, text="thing", **fields):
    defaults = {
        "emoji": "?", "group": "objects", "subgroup": "tool", "keywords": (), "wordings": (), "skin_tone": (),
        "gender": None, "base": hexcode, "base_text": text, "version": 1.0,
    }  # fmt: skip
    return Concept(hexcode=hexcode, text=text, **(defaults | fields))


def people(base, text, **fields):
    """A person in the six tones."""
    tones = {"": (), "-1F3FB": ("light",), "-1F3FC": ("medium-light",), "-1F3FD": ("medium",),
             "-1F3FE": ("medium-dark",), "-1F3FF": ("dark",)}  # fmt: skip
    return [
        concept(base + end, text + "".join(f": {one} skin tone" for one in tone), base=base, base_text=text,
                skin_tone=tone, group="people-body", subgroup="person-role", **fields)
        for end, tone in tones.items()
    ]  # fmt: skip


# Concepts


@pytest.mark.parametrize(
    ("shortcode", "words"),
    [
        ("waving_hand", "waving hand"),
        ("wave_tone1", "wave light skin tone"),
        ("couple_tone3-5", "couple medium skin tone dark skin tone"),
        ("female-firefighter", "female firefighter"),
        ("+1_tone2", "plus one medium-light skin tone"),
        ("-1", "minus one"),
        ("clock1", "clock1"),
        ("skin-tone-3", "skin tone 3"),
    ],
)
def test_shortcodes_become_words(shortcode, words):
    assert phrase(shortcode) == words


def test_canonical_hexcodes_have_no_variation_selector():
    assert canonical("1f441-fe0f-200d-1f5e8-fe0f") == "1F441-200D-1F5E8"


def test_wordings_that_respell_the_name_or_each_other_are_dropped():
    assert distinct_wordings("waving hand: dark skin tone", ["Waving hand dark skin tone", "wave", "Wave!", ""]) == (
        "wave",
    )


@pytest.mark.parametrize(
    ("entry", "base", "subgroup", "gender"),
    [
        ({"gender": 0}, {"label": "bowing"}, "person-gesture", "woman"),
        ({}, {"label": "man teacher"}, "person-role", "man"),
        ({}, {"label": "teacher"}, "person-role", "person"),
        ({}, {"label": "prince"}, "person-role", "man"),
        ({}, {"label": "people wrestling"}, "person-sport", None),
        ({}, {"label": "baby"}, "person", None),
        ({}, {"label": "man’s shoe"}, "clothing", None),
    ],
)
def test_genders(entry, base, subgroup, gender):
    assert gender_of(entry, base, subgroup) == gender


def test_tones_of_one_person_and_of_a_couple():
    assert tones_of({"tone": 3}) == ("medium",)
    assert tones_of({"tone": [1, 5]}) == ("light", "dark")
    assert tones_of({}) == ()


def test_shapes_and_colours():
    assert shape_and_colour("light blue heart") == ("heart", "light blue")
    assert shape_and_colour("black large square") == ("square", "black")
    assert shape_and_colour("broken heart") is None
    assert emojicir_families.shape_of(concept("1", "closed book")) == ("book", "red")
    assert emojicir_families.shape_of(concept("1", "white medium-small square")) == ("medium-small square", "white")


# The split


def test_splits_are_even_stable_and_spread_over_strata():
    things = [concept(f"{number:X}") for number in range(1000, 1900)]
    roles = list(itertools.chain.from_iterable(people(f"{n:X}", f"worker {n}") for n in range(5000, 5100)))
    splits = assign_splits(things + roles)
    assert Counter(splits.values()) == {"train": 1200, "validation": 150, "test": 150}
    assert splits == assign_splits((things + roles)[::-1])
    for start in range(5000, 5100):
        own = Counter(splits[one.hexcode] for one in roles if one.base == f"{start:X}")
        assert own["train"] >= 4
        assert max(own["validation"], own["test"]) <= 1


def test_small_strata_have_both_held_out_splits():
    clocks = [concept(f"{number:X}", "clock") for number in range(0x1F550, 0x1F568)]
    assert {stratum(clock) for clock in clocks} == {("clock", True)}
    assert Counter(assign_splits(clocks).values()) == {"train": 18, "validation": 3, "test": 3}


def test_concepts_that_are_drawn_alike_share_a_split():
    things = [concept(f"{number:X}") for number in range(1000, 1200)]
    pairs = [[things[i].hexcode, things[i + 1].hexcode] for i in range(0, 200, 2)]
    splits = assign_splits(things, pairs)
    assert len(splits) == 200
    assert all(splits[a] == splits[b] for a, b in pairs)
    assert len(set(splits.values())) == 3


# Packages and images


def test_drawings_without_the_vendors_flag_are_left_out(tmp_path):
    skins = {"1F3FB": {"unified": "1F44B-1F3FB", "image": "b.png", "has_img_google": True}}
    entries = [
        {"unified": "1F44B", "image": "a.png", "has_img_google": False, "skin_variations": skins},
        {"unified": "2764-FE0F", "image": "c.png", "has_img_google": True},
    ]
    (tmp_path / "emoji.json").write_text(json.dumps(entries), encoding="utf-8")
    folder = tmp_path / "img" / "google" / "64"
    assert build_emoji.datasource_files(tmp_path, "google") == {
        "1F44B-1F3FB": folder / "b.png",
        "2764": folder / "c.png",
    }


def test_fluent_files_are_filed_under_what_they_show(tmp_path):
    names = ["1f44b-1f3fc", "1f44b-1f3fd", "1f9cf-200d-2642-fe0f", "1f1ee-1f1f9", "1f4ce", "1fac4-1f3ff", "1f999"]
    (tmp_path / "assets").mkdir()
    for name in names:
        (tmp_path / "assets" / f"{name}.webp").touch()
    known = {
        canonical(one.hexcode): one
        for one in [
            concept("1F44B-1F3FC"),
            concept("1F44B-1F3FD"),
            concept("1F9CF-200D-2640-FE0F", "deaf woman"),
            concept("1F1EE-1F1F9", "flag: Italy", subgroup="country-flag"),
            concept("1F4CE", "paperclip"),
            concept("1FAC4-1F3FF"),
        ]
    }
    assert {code: path.stem for code, path in build_emoji.fluent_files(tmp_path, known).items()} == {
        "1F44B-1F3FC": "1f44b-1f3fd",
        "1F44B-1F3FD": "1f44b-1f3fc",
        "1F9CF-200D-2640": "1f9cf-200d-2642-fe0f",
    }


def test_images_are_flattened_on_white_before_they_are_scaled():
    image = Image.new("RGBA", (256, 256), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (128, 0, 256, 256))
    flat = build_emoji.flatten(image)
    assert (flat.size, flat.mode) == ((64, 64), "RGB")
    assert flat.getpixel((5, 5)) == (255, 255, 255)
    assert flat.getpixel((60, 5)) == (0, 0, 255)
    assert build_emoji.encode(flat) == build_emoji.encode(flat)
    assert np.abs(build_emoji.decode(build_emoji.encode(flat)).astype(int) - np.asarray(flat)).mean() < 6


def test_close_pairs_are_those_of_the_direct_definition():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (600, 4, 4, 3)).astype(np.uint8)
    pixels[599] = pixels[3]
    pixels[590] = pixels[530]
    pixels[520] = np.clip(pixels[7].astype(int) + 1, 0, 255)
    found = {(a, b): d for a, b, d in build_emoji.close_pairs(pixels, 3.0)}
    rows = pixels.reshape(600, -1).astype(float)
    direct = {
        (a, b): d
        for a, b in itertools.combinations(range(600), 2)
        if (d := np.sqrt(((rows[a] - rows[b]) ** 2).mean())) < 3.0
    }
    assert set(found) == set(direct) == {(3, 599), (7, 520), (530, 590)}
    assert found == pytest.approx(direct)


def test_same_drawings_join_chains():
    pixels = np.array([[0.0], [9.0], [3.0], [1.5], [9.5]])
    assert build_emoji.same_drawings(pixels) == [0, 1, 0, 0, 1]


def test_alike_concepts_are_joined_over_vendors():
    alike = {"noto/A": "noto/A", "noto/B": "noto/A", "fluent/B": "fluent/B", "fluent/C": "fluent/B", "noto/D": "noto/D"}
    assert build_emoji.alike_concepts(alike) == [["A", "B", "C"]]


def test_a_missing_package_is_named_with_the_remedy(tmp_path, capsys):
    assert build_emoji.main(["--packages", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "npm pack emoji-datasource-google@16.0.0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_check_compares_and_writes_nothing(tmp_path, capsys):
    built, out = tmp_path / "built", tmp_path / "out"
    built.write_bytes(b"new")
    assert build_emoji.publish(built, out, check=True) == 1
    out.write_bytes(b"old")
    assert build_emoji.publish(built, out, check=True) == 1
    assert out.read_bytes() == b"old"
    assert build_emoji.publish(built, out, check=False) == 0
    assert out.read_bytes() == b"new"
    built.write_bytes(b"new")
    assert build_emoji.publish(built, out, check=True) == 0
    assert "differs" in capsys.readouterr().err


# Rules


def edits(family, concepts):
    return {(e.reference, e.target, e.phrase) for e in emojicir_families.RULES[family](concepts)}


def test_clocks_move_by_half_hours():
    clocks = [concept(f"{number:X}", "clock") for number in range(0x1F550, 0x1F568)]
    found = edits("clock", clocks)
    assert ("1F55B", "1F550", "an hour later") in found  # twelve -> one
    assert ("1F550", "1F55C", "half an hour later") in found  # one -> half past one
    assert ("1F550", "1F567", "half an hour earlier") in found  # one -> half past twelve


def test_moons_wax_and_wane():
    names = ["new", "waxing crescent", "first quarter", "waxing gibbous", "full", "waning gibbous", "last quarter",
             "waning crescent"]  # fmt: skip
    moons = [concept(f"{0x1F311 + i:X}", f"{name} moon", subgroup="sky-weather") for i, name in enumerate(names)]
    found = edits("moon_phase", moons)
    assert ("1F318", "1F311", "one phase later") in found
    assert ("1F312", "1F318", "lit from the other side") in found
    assert ("1F311", "1F315", "half a cycle later") in found


def test_arrows_turn_clockwise():
    arrows = [concept("A", "up arrow"), concept("B", "right arrow"), concept("C", "down arrow")]
    found = edits("direction", arrows)
    assert ("A", "B", "turned clockwise by a quarter") in found
    assert ("A", "C", "pointing the opposite way") in found
    assert ("C", "B", "turned counter-clockwise by a quarter") in found
    assert ("C", "B", "pointing to the right") in found


def test_people_change_tone_gender_and_role():
    crowd = [
        *people("1", "woman teacher", gender="woman"),
        *people("2", "man teacher", gender="man"),
        *people("3", "woman farmer", gender="woman"),
    ]
    assert ("1-1F3FB", "1-1F3FF", "with dark skin") in edits("skin_tone", crowd)
    assert edits("gender", crowd) >= {("1-1F3FF", "2-1F3FF", "male"), ("2", "1", "female")}
    assert edits("role", crowd) >= {("1", "3", "as a farmer"), ("3-1F3FD", "1-1F3FD", "teaching at a blackboard")}
    assert not [edit for edit in edits("role", crowd) if edit[0].startswith("2")]
    assert len(edits("gender", crowd)) == 12


def test_colours_change_within_a_shape_and_shapes_within_a_colour():
    shapes = [
        concept("A", "blue heart"),
        concept("B", "green heart"),
        concept("C", "blue circle"),
        concept("D", "red heart"),
    ]
    found = edits("colour", shapes)
    assert ("A", "B", "in green") in found
    assert ("A", "C", "as a solid circle of the same colour") in found
    assert not [edit for edit in found if edit[1] == "D"]  # several other emoji are red hearts


def test_a_sentence_never_has_two_answers():
    crowd = [*people("1", "woman teacher", gender="woman"), *people("2", "man teacher", gender="man")]
    for family in ("skin_tone", "gender", "style"):
        answers = Counter((e.reference, e.phrase, e.vendor) for e in emojicir_families.RULES[family](crowd))
        assert max(answers.values()) == 1


# Choice of queries


def corpus(codes, near=None):
    documents = {f"noto/{code}": concept(code, f"name {code}") for code in codes}
    return Corpus(
        documents=documents,
        splits={code: "validation" if code in "XY" else "train" for code in codes},
        near={key: frozenset((near or {}).get(key, ())) for key in documents},
        twins={key: frozenset({key}) for key in documents},
    )


def edit(reference, target, text="in red", siblings=()):
    return Edit("colour", reference, target, f"colour:{text}", text, tuple(siblings))


def test_candidates_exist_are_visible_and_respect_the_split():
    small = corpus("ABCX", near={"noto/C": {"noto/A"}})
    found = build_emojicir.candidates(
        small, [edit("A", "B"), edit("A", "X"), edit("X", "A"), edit("B", "C"), edit("A", "missing")]
    )
    assert [(one.reference, one.targets, one.split) for one in found] == [
        ("noto/A", ("noto/B",), "train"),
        ("noto/A", ("noto/X",), "validation"),
    ]


def candidate(reference, target, split="train", text="in red", siblings=()):
    return Candidate(reference, (target,), split, edit(reference.split("/")[1], target.split("/")[1], text, siblings))


def query(reference, target, text, split="train"):
    return Query(candidate(reference, target, split, text), text, "{}", ())


def test_select_skips_references_with_one_answer_and_keeps_to_the_caps():
    found = [candidate("noto/A", f"noto/{one}", text=one) for one in "BCDE"] + [candidate("noto/F", "noto/B")]
    chosen = build_emojicir.select(found, cap=10, each=3, known={})
    assert [one.reference for one in chosen] == ["noto/A"] * 3
    assert len({one.targets for one in chosen}) == 3
    both = build_emojicir.select(found, cap=10, each=3, known={"noto/F": {("noto/Z",)}})
    assert {one.reference for one in both} == {"noto/A", "noto/F"}
    assert len(build_emojicir.select(found, cap=2, each=3, known={})) == 2


def test_shortcuts_are_removed_until_none_is_left():
    fair = [query("n/A", "n/1", "s"), query("n/B", "n/2", "s"), query("n/A", "n/3", "t"), query("n/B", "n/4", "t")]
    assert build_emojicir.without_shortcuts(fair) == fair
    told_by_text = query("n/A", "n/5", "u")
    assert build_emojicir.telling_texts([*fair, told_by_text]) == {("train", "u")}
    told_by_image = query("n/C", "n/6", "s")
    assert build_emojicir.telling_references([*fair, told_by_image]) == {"n/C"}
    assert build_emojicir.without_shortcuts([*fair, told_by_text, told_by_image]) == fair
    assert build_emojicir.without_shortcuts(fair[:3]) == []  # dropping the third leaves the others alone


def test_names_of_targets_are_noticed_in_any_template():
    assert build_emojicir.says_name("role", "swimming", "person swimming")
    assert not build_emojicir.says_name("role", "swimming", "person swimming: dark skin tone")


def test_subsets_leave_out_the_reference_and_held_out_siblings():
    small = corpus("ABCDEFGXY")
    siblings = "ABCX"
    train = build_emojicir.subset_of(small, candidate("noto/A", "noto/B", siblings=siblings))
    assert {"noto/B", "noto/C"} <= set(train)
    assert not {"noto/A", "noto/X", "noto/Y"} & set(train)
    assert len(train) == build_emojicir.SMALLEST_SUBSET
    held_out = build_emojicir.subset_of(small, candidate("noto/A", "noto/X", "validation", siblings=siblings))
    assert {"noto/B", "noto/C", "noto/X"} <= set(held_out)


def test_training_uses_its_own_templates_only():
    for family, templates in TEMPLATES.items():
        for turn in range(12):
            assert set(build_emojicir.templates_for("train", family, turn)) == set(templates.trained)
        held_out = {build_emojicir.templates_for("test", family, turn)[0] for turn in range(11)}
        assert held_out == {*templates.trained, *templates.unseen}


def test_the_table_counts_families_and_splits():
    table = pa.table({"family": ["clock", "clock", "role"], "split": ["train", "test", "train"]})
    lines = build_emojicir.markdown_table(table).splitlines()
    assert "| `clock` | 1 | 0 | 1 |" in lines
    assert lines[-1] == "| all | 2 | 0 | 1 |"
