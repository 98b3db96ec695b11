"""Composed queries on product photos: the rules, the builder, and a run, on photos drawn here."""

from __future__ import annotations

import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from benchmarks.photos import build, corpus, rules
from benchmarks.photos.names import TYPES
from benchmarks.photos.rules import SENTENCES, Kind, Product, gallery_of, queries_of, split_of
from benchmarks.tasks.photos import BENCHMARK

COLORS = ("Red", "Green", "White", "Purple")
SHAPES = {"Tshirts": "rectangle", "Caps": "ellipse", "Watches": "line"}


def product(id="1", title="Acme Men Striped Red Shirt", gender="Men", type="Shirts", color="red", digest=None):
    return Product(id, title, gender, type, color, digest or f"digest of {id}")


def photo(type_, color, number):
    image = Image.new("RGB", (60, 80), "white")
    pen = ImageDraw.Draw(image)
    getattr(pen, SHAPES[type_])((10 + number % 7, 20, 50, 60), fill=color.lower(), width=1 + number % 5)
    image.putpixel((number % 60, number // 60), (1, 2, 3))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def shop(brands=80):
    """Brands with one model of each type for men and one for women, in four colors."""
    rows = []
    for brand in range(brands):
        gender = ("Men", "Women")[brand % 2]
        for type_ in SHAPES:
            for color in COLORS:
                number = len(rows)
                title = f"Brand{brand // 2} {color} Thing"
                rows.append({
                    "id": f"{number:05}", "image": photo(type_, color, number), "title": title, "gender": gender,
                    "articleType": type_, "baseColour": color,
                })  # fmt: skip
    return rows


@pytest.fixture
def table(tmp_path):
    pq.write_table(pa.Table.from_pylist(shop()), tmp_path / "shop.parquet")
    return tmp_path / "shop.parquet"


def test_a_model_is_its_title_without_colors_and_plurals():
    assert product().model == ("acme men striped shirt", "Men", "Shirts")
    assert product(title="Acme Men Striped Dark Navy Blue Shirts").model == product().model
    assert product(title="Acme Men Checked Red Shirt").model != product().model
    assert product(gender="Women").model != product().model


@pytest.mark.parametrize(
    ("title", "color", "right"),
    [
        ("Acme Red Shirt", "red", True),
        ("Acme Shirt", "red", True),
        ("Acme Blue Shirt", "red", False),
        ("Acme Red & Blue Shirt", "red", False),
        ("Acme Navy Shirt", "navy blue", True),
        ("Acme Navy Blue Shirt", "blue", False),
        ("Acme Gray Shirt", "grey", True),
        ("Acme Golden Watch", "gold", True),
    ],
)
def test_a_title_that_names_another_color_is_left_out(title, color, right):
    assert product(title=title, color=color).consistent is right
    assert bool(gallery_of([product(title=title, color=color)])) is right


def test_of_identical_photos_one_remains():
    same = [product(str(number), digest="same") for number in (2, 1, 3)]
    assert [each.id for each in gallery_of(same)] == ["1"]


def test_no_model_and_no_photo_is_in_two_parts():
    products = [product(f"{m}-{n}", f"Brand{m} Shirt", digest=f"{m}-{n}") for m in range(300) for n in range(2)]
    products += [product(f"twin-{m}", f"Copy{m} Shirt", digest=f"{m}-0") for m in range(0, 300, 3)]
    part = split_of(products)
    assert part == split_of(products[::-1])
    for m in range(300):
        assert len({part[f"{m}-{n}"] for n in range(2)} | ({part[f"twin-{m}"]} if m % 3 == 0 else set())) == 1
    counts = [sum(1 for each in part.values() if each == name) for name in ("train", "validation", "test")]
    assert [round(count / len(products), 1) for count in counts] in (
        [0.6, 0.2, 0.2],
        [0.6, 0.1, 0.2],
        [0.6, 0.1, 0.3],
        [0.6, 0.2, 0.3],
    )


def colored(title, colors, **more):
    return [
        product(f"{title}-{color}-{more.get('gender', 'Men')}", f"{title} {color} Shirt", color=color, **more)
        for color in colors
    ]


def many(make, colors=("red", "green", "white", "maroon")):
    """Enough models of each color that none is too rare to be measured."""
    return [each for number in range(24) for each in make(f"Brand{number}", colors)]


def test_same_model_asks_for_the_model_in_another_color():
    gallery = gallery_of([*many(colored), *many(lambda *a: colored(*a, gender="Women"))])
    by_id = {each.id: each for each in gallery}
    queries = queries_of(gallery, Kind.SAME_MODEL, 1000, TYPES)
    assert queries
    for query in queries:
        reference = by_id[query.reference]
        assert query.reference not in query.targets
        assert query.color in query.text
        for target in query.targets:
            assert by_id[target].model == reference.model
            assert by_id[target].color == query.color != reference.color
        # the same title for the other gender, and colors that shops confuse, are neither right nor wrong
        other = "Women" if reference.gender == "Men" else "Men"
        assert {f"{reference.title.split()[0]}-{query.color}-{other}"} <= set(query.neutral)
        if query.color == "red":
            assert reference.color != "maroon"
            assert f"{reference.title.split()[0]}-maroon-{reference.gender}" in query.neutral


def test_same_model_is_not_asked_of_titles_that_many_share_nor_of_two_colors(monkeypatch):
    monkeypatch.setattr(rules, "LEAST_OF_COLOR", 1)
    crowd = [
        product(f"x{number}", f"Acme Shirt {color}", color=color)
        for number, color in enumerate(["red", "green", "white"] * 3)
    ]
    pairs = many(colored, ("red", "green"))
    assert queries_of(gallery_of([*crowd, *pairs]), Kind.SAME_MODEL, 1000, TYPES) == []


def test_color_and_type_keep_what_they_do_not_change(monkeypatch):
    monkeypatch.setattr(rules, "LEAST_OF_COLOR", 1)
    gallery = gallery_of(
        [
            each
            for number in range(40)
            for type_ in ("Shirts", "Caps")
            for gender in ("Men", "Women")
            for each in colored(f"B{number}-{type_}", ("red", "green"), type=type_, gender=gender)
        ]
    )
    by_id = {each.id: each for each in gallery}
    asked = set()
    for kind in (Kind.COLOR, Kind.TYPE):
        for query in queries_of(gallery, kind, 1000, TYPES):
            asked.add(kind)
            reference = by_id[query.reference]
            assert {by_id[target].gender for target in query.targets} == {reference.gender}
            kept, changed = ("type", "color") if kind is Kind.COLOR else ("color", "type")
            for target in (by_id[each] for each in query.targets):
                assert getattr(target, kept) == getattr(reference, kept)
                assert getattr(target, changed) != getattr(reference, changed)
                assert target.model != reference.model
            assert not set(query.targets) & set(query.neutral)
            assert {by_id[each].gender for each in query.neutral} - {reference.gender}  # of another gender: neutral
    assert asked == {Kind.COLOR, Kind.TYPE}


def test_every_kind_is_said_in_several_ways():
    assert all(len(set(own)) >= 4 and all(each.count("{}") == 1 for each in own) for own in SENTENCES.values())


def test_it_is_built_the_same_every_time(table, tmp_path, capsys):
    assert build.main([str(table), str(tmp_path / "one")]) == 0
    assert "| test |" in capsys.readouterr().out
    build.build(table, tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"split.json", "test.json", "validation.json"} < {str(file) for file in files}
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    rows = {row["id"]: row["image"] for row in pq.read_table(table).to_pylist()}
    for name in json.loads((tmp_path / "one/test.json").read_text())["gallery"]:
        assert (tmp_path / "one/images" / f"{name}.jpg").read_bytes() == rows[name]


def test_a_run_leaves_out_what_is_neutral(table, tmp_path, run_benchmark):
    build.build(table, tmp_path / "data")
    judged = json.loads((tmp_path / "data/test.json").read_text())
    code, result, out = run_benchmark(BENCHMARK, tmp_path / "data", "--method", "sum", "--run", str(tmp_path / "run"))
    assert code == 0, out
    queries = {each["id"]: each for each in judged["queries"] if each["kind"] == "same-model"}
    assert result["queries"] == len(queries) > 50
    assert result["protocol"]["average"] == "families"
    assert set(result["families"]) == {each["color"] for each in queries.values()}
    found = {}
    for line in (tmp_path / "run").read_text().splitlines():
        query, _, document, *_ = line.split()
        found.setdefault(query, set()).add(document)
    assert sum(bool(each["neutral"]) for each in queries.values()) > 20
    for name, own in found.items():
        assert not own & {queries[name]["reference"], *queries[name]["neutral"]}
        assert own <= set(judged["gallery"])
    code, result, out = run_benchmark(
        BENCHMARK, tmp_path / "data", "--method", "image", "--split", "validation-same-model"
    )
    assert code == 0, out


def test_a_damaged_folder_is_named(table, tmp_path, run_benchmark):
    build.build(table, tmp_path / "data", most={"test": 20, "validation": 20})
    values = json.loads((tmp_path / "data/test.json").read_text())
    del values["queries"][3]["neutral"]
    (tmp_path / "data/test.json").write_text(json.dumps(values))
    code, _, out = run_benchmark(BENCHMARK, tmp_path / "data")
    assert code == 2
    assert "query 3 of test.json has no 'neutral'" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row | {"id": "same"} for row in rows], "an id occurs twice"),
        (lambda rows: [row | {"id": "../out"} for row in rows[:1]], "cannot be a file name"),
        (lambda rows: [row | {"title": None} for row in rows[:1]] + rows[1:], "Row 0 has no title"),
        (lambda rows: [{"id": row["id"]} for row in rows], "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, capsys, change, message):
    pq.write_table(pa.Table.from_pylist(change(shop(2))), tmp_path / "shop.parquet")
    assert build.main([str(tmp_path / "shop.parquet"), str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_digests_are_of_the_photo(table):
    rows = pq.read_table(table).to_pylist()[:3]
    assert [build._product(row, 0).digest for row in rows] == [hashlib.sha256(row["image"]).hexdigest() for row in rows]


def sources(folder):
    """A table of each source, of a few rows."""
    image = photo("Caps", "Red", 1)
    tables = {
        "flickr8k": [
            {"id": f"p{number}", "image": image, "captions": ["A dog runs .", "A  brown dog , wet ."], "split": split}
            for number, split in enumerate(("train", "dev", "test", "none"))
        ],
        "fashion": [row | {"usage": "Formal"} for row in shop(10)],
        "grocery": [
            {"id": "images/1.jpg", "image": image, "label": "Granny-Smith", "coarse": "Apple", "split": "val",
             "description": "A green apple with firm pulp. It is sour."},
            {"id": "images/2.jpg", "image": image, "label": "Arla-Standard-Milk", "coarse": "Milk", "split": "train",
             "description": "Milk."},
        ],
        "emoji": [{"id": "e", "image": image, "text": "red apple", "keywords": None, "split": "train"}],
    }  # fmt: skip
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return {name: folder / f"{name}.parquet" for name in tables}


def test_the_training_corpus_is_put_together(tmp_path, capsys):
    tables = sources(tmp_path)
    called = [part for name, file in tables.items() for part in (f"--{name}", str(file))]
    assert corpus.main([str(tmp_path / "photos.parquet"), *called]) == 0
    assert "flickr8k: 3 photos" in capsys.readouterr().out
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "photos.parquet").to_pylist()}
    assert rows["flickr8k/p1"]["split"] == "validation"
    assert rows["flickr8k/p0"]["captions"] == ["A dog runs.", "A brown dog, wet."]
    assert "Granny Smith apple" in rows["grocery/images/1.jpg"]["captions"]
    assert "a carton of Arla Standard Milk" in rows["grocery/images/2.jpg"]["captions"]
    assert rows["emoji/e"]["captions"][0] == rows["emoji/e"]["text"] == "red apple"
    part = split_of([build._product(row, 0) for row in pq.read_table(tables["fashion"]).to_pylist()])
    assert {name: part[name] for name in part} == {
        row["id"].removeprefix("fashion/"): row["split"] for row in rows.values() if row["source"] == "fashion"
    }
    with pytest.raises(SystemExit):
        corpus.main([])
    assert corpus.main([str(tmp_path / "x.parquet")]) == 2
    assert corpus.main([str(tmp_path / "x.parquet"), "--emoji", str(tables["grocery"])]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_product_is_described_from_its_fields():
    said = corpus.described(product(title="Acme Men's Striped Red Shirt", color="red"), "Formal")
    assert {"red shirt", "men's red shirt", "red shirt for men", "a red formal shirt for men", "shirt in red"} < set(
        said
    )
    assert "striped red shirt" in said
    assert not any("acme" in each.lower() for each in said if each != "Acme Men's Striped Red Shirt")
    assert "an orange T-shirt" in " ".join(corpus.described(product(type="Tshirts", color="orange"), ""))
    assert "a photo of blue jeans for men" in corpus.described(product(type="Jeans", color="blue"), "")
