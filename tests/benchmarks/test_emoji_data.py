"""What the bundled corpus and EmojiCIR promise, proved on the committed Parquet files.

What these tests do not know: the npm packages. That the files are what the scripts make of them is checked by
the scripts' `--check`; the scripts' own functions are tested in `test_emoji_build.py`.
"""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.emoji import build as build_emoji
from benchmarks.emoji import build_queries as build_emojicir
from benchmarks.emoji.build import BUNDLED
from benchmarks.emoji.concepts import Concept, assign_splits, plain, stratum
from benchmarks.emoji.families import shape_of, stem_of
from benchmarks.emoji.words import CLOCK_PHRASES, FAMILIES, TEMPLATES, TONE_STEPS

HELD_OUT = ("validation", "test")
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
MODIFIERS = dict(zip(("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"), TONES, strict=True))


@pytest.fixture(scope="module")
def documents():
    return {row["id"]: row for row in pq.read_table(BUNDLED / "emoji.parquet").to_pylist()}


@pytest.fixture(scope="module")
def queries():
    return pq.read_table(BUNDLED / "emojicir.parquet").to_pylist()


@pytest.fixture(scope="module")
def pixels(documents):
    return {key: build_emoji.decode(row["image"]).astype(np.float32) for key, row in documents.items()}


@pytest.fixture(scope="module")
def concepts(documents):
    """The concepts as the rules see them, by hexcode, in row order."""
    names = {row["concept"]: row["text"] for row in documents.values()}
    return {row["concept"]: build_emojicir.concept_of(row, names[row["base"]]) for row in documents.values()}


def difference(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


# The corpus


def test_the_columns_and_the_size_are_as_documented():
    schema = pq.read_schema(BUNDLED / "emoji.parquet")
    assert schema.names == build_emoji.SCHEMA.names
    assert [str(kind) for kind in schema.types] == [
        "string", "string", "string", "string", "binary", "string", "string", "string",
        "list<element: string>", "list<element: string>", "list<element: string>",
        "string", "string", "double", "string", "string",
    ]  # fmt: skip
    assert (BUNDLED / "emoji.parquet").stat().st_size < 16_000_000
    assert (BUNDLED / "emojicir.parquet").stat().st_size < 1_000_000


def test_ids_are_unique_and_made_of_vendor_and_concept(documents):
    assert len(documents) == pq.read_metadata(BUNDLED / "emoji.parquet").num_rows == 10_577
    assert all(key == f"{row['vendor']}/{row['concept']}" for key, row in documents.items())
    vendors = Counter(row["vendor"] for row in documents.values())
    assert vendors == {"noto": 3786, "twemoji": 3786, "fluent": 3005}


def test_every_image_is_64_pixels_rgb_webp_on_white(documents, pixels):
    for row in documents.values():
        with Image.open(io.BytesIO(row["image"])) as image:
            assert (image.format, image.size, image.mode) == ("WEBP", (64, 64), "RGB"), row["id"]
    assert {image.shape for image in pixels.values()} == {(64, 64, 3)}
    white = [key for key, image in pixels.items() if image[0, 0].min() > 240]
    assert len(white) / len(pixels) > 0.7  # a background of another colour would leave none


def test_no_drawing_is_of_uncertain_origin(documents):
    fluent = [row for row in documents.values() if row["vendor"] == "fluent"]
    assert not [row["text"] for row in fluent if row["subgroup"] in build_emoji.UNPROVEN_FLUENT]
    assert not [row["text"] for row in fluent if row["text"].startswith(("flag:", "family"))]
    names = {row["concept"]: row["text"] for row in documents.values()}
    assert not {names[row["base"]] for row in fluent} & set(build_emoji.TRADEMARKS)


def test_skin_tones_are_those_of_the_hexcode(documents):
    for row in documents.values():
        modifiers = [MODIFIERS[part] for part in row["concept"].split("-") if part in MODIFIERS]
        if row["group"] == "component":
            assert row["skin_tone"] == []
        elif len(modifiers) == 2 and modifiers[0] == modifiers[1]:
            assert row["skin_tone"] == modifiers[:1]  # CLDR names the tone of such a couple once
        else:
            assert row["skin_tone"] == modifiers, row["id"]


@pytest.mark.parametrize("vendor", ["noto", "twemoji", "fluent"])
def test_darker_tones_are_drawn_darker(documents, pixels, vendor):
    """The Fluent package exchanges two tones in its file names; here every bare hand must get darker."""
    hands = {r["base"] for r in documents.values() if r["subgroup"].startswith("hand-") and r["skin_tone"]}
    checked = 0
    for base in sorted(hands):
        toned = [pixels.get(f"{vendor}/{base}-{modifier}") for modifier in MODIFIERS]
        if any(image is None for image in toned):
            continue
        means = [float(image.mean()) for image in toned]
        assert all(a > b for a, b in pairwise(means)), (vendor, base, means)
        checked += 1
    assert checked > 25


def test_genders_are_where_they_should_be(documents):
    genders = {row["text"]: row["gender"] for row in documents.values()}
    expected = {
        "woman teacher": "woman", "man: red hair": "man", "firefighter": "person", "princess": "woman",
        "men wrestling": "man", "merperson": "person", "person swimming: dark skin tone": "person",
        "waving hand": None, "people holding hands": None, "baby": None, "red heart": None,
    }  # fmt: skip
    assert {name: genders[name] for name in expected} == expected
    assert set(genders.values()) == {"woman", "man", "person", None}


def test_wordings_are_words_and_say_something_new(documents):
    for row in documents.values():
        said = [plain(wording) for wording in row["wordings"]]
        assert len({*said, plain(row["text"])}) == len(said) + 1, row["id"]
        assert not any(re.search(r"_|tone\d|^\W+$", wording) for wording in row["wordings"])
    assert sum(bool(row["wordings"]) for row in documents.values()) > 5000


# The split


def test_the_split_is_by_concept_and_about_80_10_10(documents):
    splits = defaultdict(set)
    for row in documents.values():
        splits[row["concept"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    counts = Counter(next(iter(found)) for found in splits.values())
    assert {split: round(100 * count / len(splits)) for split, count in counts.items()} == {
        "train": 80, "validation": 10, "test": 10,
    }  # fmt: skip


def test_the_split_follows_from_the_rule(documents, concepts):
    alike = build_emoji.alike_concepts({row["id"]: row["drawing"] for row in documents.values()})
    again = assign_splits(list(concepts.values()), alike)
    assert again == {row["concept"]: row["split"] for row in documents.values()}


def test_no_drawing_is_in_two_splits(documents, pixels):
    groups = defaultdict(list)
    for row in documents.values():
        groups[row["drawing"]].append(row)
    shared = [rows for rows in groups.values() if len(rows) > 1]
    assert len(shared) > 20
    for rows in shared:
        assert len({row["split"] for row in rows}) == 1, [row["text"] for row in rows]
        nearest = min(difference(pixels[rows[0]["id"]], pixels[row["id"]]) for row in rows[1:])
        assert nearest < build_emoji.SAME_DRAWING


def test_small_families_have_targets_in_both_held_out_splits(documents, concepts):
    splits = {row["concept"]: row["split"] for row in documents.values()}
    members = defaultdict(Counter)
    for concept in concepts.values():
        name, small = stratum(concept)
        if small:
            members[name][splits[concept.hexcode]] += 1
    assert {"clock", "moon phase", "compass arrow", "coloured heart", "coloured square", "cat face"} <= set(members)
    lacking = [name for name, found in members.items() if found.total() >= 7 and len(found) < 3]
    assert lacking == []


def test_held_out_people_keep_trained_siblings(documents):
    tones = defaultdict(Counter)
    for row in documents.values():
        if row["vendor"] == "noto" and row["group"] == "people-body":
            tones[row["base"]][row["split"]] += 1
    groups = [found for found in tones.values() if found.total() == 6]
    assert len(groups) > 250
    assert all(found["train"] >= 4 for found in groups)
    trained = {word for r in documents.values() if r["split"] == "train" for word in plain(r["text"]).split()}
    unseen = {r["text"] for r in documents.values() if not set(plain(r["text"]).split()) <= trained}
    held_out = {row["text"] for row in documents.values() if row["split"] != "train"}
    assert len(unseen & held_out) / len(held_out) < 0.35


# The queries: shape and splits


def test_query_columns_ids_and_sentences(queries):
    assert pq.read_schema(BUNDLED / "emojicir.parquet").names == build_emojicir.SCHEMA.names
    assert len({query["query_id"] for query in queries}) == len(queries)
    assert all(query["query_id"].startswith(f"{query['split']}/{query['family']}/") for query in queries)
    assert len({(query["reference"], query["text"]) for query in queries}) == len(queries)


def test_there_are_enough_queries_and_no_family_rules(queries):
    counts = Counter(query["split"] for query in queries)
    assert min(counts[split] for split in HELD_OUT) >= 1000
    assert counts["train"] <= 20_000
    for split in counts:
        families = Counter(query["family"] for query in queries if query["split"] == split)
        assert set(families) == set(FAMILIES)
        assert len(families) == 10
        assert max(families.values()) <= 0.35 * counts[split], families


def test_targets_are_of_the_split_and_training_sees_training_only(queries, documents):
    for query in queries:
        assert query["targets"]
        assert {documents[one]["split"] for one in query["targets"]} == {query["split"]}
        if query["split"] == "train":
            assert {documents[one]["split"] for one in (query["reference"], *query["subset"])} == {"train"}


def test_subsets_hold_the_targets_and_hard_siblings(queries, documents):
    for query in queries:
        subset, targets = set(query["subset"]), set(query["targets"])
        assert (len(subset), len(targets)) == (len(query["subset"]), len(query["targets"]))
        assert 5 <= len(subset) <= 12
        assert targets < subset
        reference = documents[query["reference"]]
        assert reference["drawing"] not in {documents[one]["drawing"] for one in subset}
        vendors = {documents[one]["vendor"] for one in subset}
        assert len(vendors) == 1
        assert (vendors == {reference["vendor"]}) == (query["family"] != "style")


def test_all_drawings_that_answer_are_targets_and_nothing_else_looks_like_them(queries, documents, pixels):
    twins = defaultdict(set)
    for row in documents.values():
        twins[row["drawing"]].add(row["id"])
    for query in queries:
        targets = set(query["targets"])
        assert targets == set.union(*(twins[documents[one]["drawing"]] for one in targets))
        if query["split"] in HELD_OUT:
            others = [query["reference"], *(set(query["subset"]) - targets)]
            closest = min(difference(pixels[query["targets"][0]], pixels[one]) for one in others)
            assert closest >= build_emojicir.VISIBLE, query


# The queries: no shortcuts


def test_no_sentence_names_its_target(queries, documents):
    for query in queries:
        for target in query["targets"]:
            assert f" {plain(documents[target]['text'])} " not in f" {plain(query['text'])} ", query


def test_text_alone_never_tells_the_answer(queries):
    answers = defaultdict(list)
    for query in queries:
        answers[query["split"], query["text"]].append(set(query["targets"]))
    for key, targets in answers.items():
        assert len(targets) >= 2, key
        assert not set.intersection(*targets), key


def test_the_image_alone_never_tells_the_answer(queries):
    everywhere, within = defaultdict(set), defaultdict(set)
    for query in queries:
        everywhere[query["reference"]].add(tuple(query["targets"]))
        within[query["split"], query["reference"]].add(tuple(query["targets"]))
    assert all(len(found) >= 2 for found in everywhere.values())
    for split in HELD_OUT:
        several = Counter()
        for query in queries:
            if query["split"] == split:
                several[query["family"]] += len(within[split, query["reference"]]) > 1
        total = Counter(query["family"] for query in queries if query["split"] == split)
        assert several.total() / total.total() > 0.65
        for family in ("role", "expression", "clock", "style"):
            assert several[family] / total[family] > 0.8, (split, family)


def test_sentences_come_from_many_templates_some_never_trained_on(queries):
    used = defaultdict(set)
    for query in queries:
        start, end = query["template"].split("{}")
        assert re.fullmatch(re.escape(start) + ".+" + re.escape(end), query["text"])
        used[query["split"], query["family"]].add(query["template"])
    for family, templates in TEMPLATES.items():
        assert len(set(templates.trained)) >= 6
        assert set(templates.trained).isdisjoint(templates.unseen)
        assert used["train", family] == set(templates.trained)
        for split in HELD_OUT:
            assert used[split, family] & set(templates.unseen), (split, family)
            assert len(used[split, family]) >= 6


# The queries: the answer is right


def wrong(queries, family, concepts, holds):
    """The queries of a family for which `holds` is false of every target (it may be false of a twin)."""
    return [
        query
        for query in queries
        if query["family"] == family
        and not any(
            holds(query, concepts[query["reference"].split("/")[1]], concepts[one.split("/")[1]])
            for one in query["targets"]
        )
    ]


def test_skin_tone_changes_the_tone_only(queries, concepts):
    def holds(query: dict, reference: Concept, target: Concept) -> bool:
        kind, value = query["change"].split(":")
        if kind == "shade":
            steps = TONES.index(target.skin_tone[0]) - TONES.index(reference.skin_tone[0])
            said = steps == int(value) and TONE_STEPS[steps] in query["text"]
        else:
            said = (*target.skin_tone, "none")[0] == value
            said = said and (value if value != "none" else "yellow") in query["text"]
        return said and reference.base == target.base and reference.skin_tone != target.skin_tone

    assert wrong(queries, "skin_tone", concepts, holds) == []


def test_gender_hair_and_role_change_one_thing_each(queries, concepts):
    def other_gender(_query: dict, reference: Concept, target: Concept) -> bool:
        same = (stem_of(reference), reference.skin_tone) == (stem_of(target), target.skin_tone)
        return same and reference.gender != target.gender

    def other_stem(_query: dict, reference: Concept, target: Concept) -> bool:
        same = (reference.gender, reference.skin_tone) == (target.gender, target.skin_tone)
        return same and stem_of(reference) != stem_of(target)

    assert wrong(queries, "gender", concepts, other_gender) == []
    assert wrong(queries, "hair", concepts, other_stem) == wrong(queries, "role", concepts, other_stem) == []


def test_clocks_tell_the_time_that_the_sentence_says(queries, concepts):
    hours = "one two three four five six seven eight nine ten eleven twelve".split()
    steps = {phrase: count for count, phrase in CLOCK_PHRASES.items()}

    def halves(concept: Concept) -> int:
        hour, _, minutes = concept.text.replace(" o’clock", "-").partition("-")
        return (hours.index(hour) + 1) * 2 + (minutes == "thirty")

    def holds(query: dict, reference: Concept, target: Concept) -> bool:
        start, end = query["template"].split("{}")
        phrase = query["text"][len(start) : len(query["text"]) - len(end)]
        return (halves(reference) + steps[phrase] - halves(target)) % 24 == 0

    assert wrong(queries, "clock", concepts, holds) == []


def test_colours_directions_and_styles_keep_the_rest(queries, concepts):
    def repainted(query: dict, reference: Concept, target: Concept) -> bool:
        (shape, tint), (new_shape, new_tint) = shape_of(reference), shape_of(target)
        said = f"in {new_tint}" if shape == new_shape else "of the same colour"
        return (shape == new_shape) != (tint == new_tint) and said in query["text"]

    def turned(_query: dict, reference: Concept, target: Concept) -> bool:
        same = (reference.skin_tone, reference.gender) == (target.skin_tone, target.gender)
        return same and reference.base != target.base

    def redrawn(query: dict, reference: Concept, target: Concept) -> bool:
        return reference == target and query["change"] == f"style:{query['targets'][0].split('/')[0]}"

    assert wrong(queries, "colour", concepts, repainted) == []
    assert wrong(queries, "direction", concepts, turned) == []
    assert wrong(queries, "style", concepts, redrawn) == []


def test_the_readme_shows_the_current_counts():
    table = build_emojicir.markdown_table(pq.read_table(BUNDLED / "emojicir.parquet"))
    assert table in (BUNDLED / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_building_emojicir_again_gives_the_same_rows():
    again = build_emojicir.build(build_emojicir.read_corpus(BUNDLED / "emoji.parquet"))
    assert again.to_pylist() == pq.read_table(BUNDLED / "emojicir.parquet").to_pylist()
