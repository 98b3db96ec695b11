"""Published data sets in miniature: drawn images of a few pixels, in the exact layouts of their publishers.

Images come in pairs that `fake:64` cannot tell apart, so that the ranking of the method `image` is known: a
reference finds its twin first, and ties with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def paint(path: Path, seed: int, size: tuple[int, int] = (24, 24)) -> None:
    """An image of four by four colors; the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.random.default_rng(seed).integers(0, 8, (4, 4, 3)) * 32 + 16
    Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(path)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def cirr(
    root: Path,
    split: str,
    *,
    images: int = 60,
    queries: int = 20,
    references: int = 20,
    suffix: str = ".png",
    draw: bool = True,
) -> Path:
    """CIRR as its repository has it; a query's target is its reference's twin, or its neighbour if all are asked."""
    names = [f"{split}-{number}-0-img{number % 2}" for number in range(images)]
    folder = {"val": "dev", "test1": "test1"}[split]
    write(root / f"image_splits/split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})
    records = []
    for number in range(queries):
        place = number % references * (2 if 2 * references <= images else 1)
        one, twin = names[place], names[(place + 1) % images]
        if number % 2:
            one, twin = (twin, one) if 2 * references <= images else (one, twin)
        record = {
            "pairid": 12_063 + number,
            "reference": one,
            "caption": f"show number {number} at night",
            "img_set": {"id": number, "members": [names[(place + n) % images] for n in range(6)]},
        }
        if split == "val":
            record |= {"target_hard": twin, "target_soft": {twin: 1.0, names[(place + 2) % images]: 0.5}}
            record["img_set"] |= {"reference_rank": 0, "target_rank": 1}
        records.append(record)
    write(root / f"captions/cap.rc2.{split}.json", records)
    for number, name in enumerate(names if draw else ()):
        paint(root / "img_raw" / folder / f"{name}{suffix}", number // 2)
    return root


CATEGORIES = ("dress", "shirt", "toptee")


def fashioniq(root: Path, *, counts: dict | None = None, draw: bool = True) -> Path:
    """FashionIQ's validation split: a category has 24 images and 8 queries, each to its reference's twin.

    `counts` gives queries, images and named images of each category in place of these.
    """
    for start, category in enumerate(CATEGORIES):
        queries, original, named = counts[category] if counts else (8, 24, 16)
        names = [f"B{start}{number:06}" for number in range(original)]
        write(root / f"image_splits/split.{category}.val.json", names)
        records = []
        for number in range(queries):
            place = 2 * number % named
            # With an odd number of names the last reference's twin is the first.
            one, twin = names[place], names[(place + 1) % named]
            captions = ["is red and shiny.", f"has number {number}?"] if number else ["", "is more blue, "]
            records.append({"candidate": one, "target": twin, "captions": captions})
        write(root / f"captions/cap.{category}.val.json", records)
        for number, name in enumerate(names if draw else ()):
            paint(root / f"images/{name}{'.jpg' if number % 4 < 2 else '.png'}", 1000 * start + number // 2)
    return root


def circo(
    root: Path, split: str, *, images: int = 60, queries: int = 12, listed: bool = True, draw: bool = True
) -> Path:
    """CIRCO: four images are alike, the first is the reference, the others are the targets."""
    numbers = [17 + 3 * number for number in range(images)]
    if listed:
        entries = [{"id": number, "file_name": f"{number:012}.jpg"} for number in numbers]
        write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": entries})
    records = []
    for number in range(queries):
        reference, *targets = (numbers[(4 * number + n) % images] for n in range(4))
        record = {
            "reference_img_id": reference,
            "relative_caption": f"is number {number}",
            "shared_concept": "a thing",
            "id": number,
        }
        if split == "val":
            aspects = ["cardinality", *(["viewpoint"] if number % 3 == 0 else [])]
            record |= {"target_img_id": targets[0], "gt_img_ids": targets, "semantic_aspects": aspects}
        records.append(record)
    write(root / f"annotations/{split}.json", records)
    for place, number in enumerate(numbers if draw else ()):
        paint(root / f"COCO2017_unlabeled/unlabeled2017/{number:012}.jpg", place // 4)
    return root


def genecis(root: Path, *, queries: int = 6) -> Path:
    """GeneCIS: objects of COCO, 15 candidates; parts of Visual Genome, 5. A target is its reference's twin."""
    for number in range(40):
        paint(root / f"val2017/{number + 1:012}.jpg", number // 2)
    for number in range(4):
        # Eight squares in a row: even ones and the next odd ones are alike, on a black ground.
        canvas = Image.new("RGB", (8 * 48, 48))
        for square in range(8):
            paint(root / "square.png", 100 + 4 * number + square // 2)
            canvas.paste(Image.open(root / "square.png"), (square * 48 + 24, 24))
        path = root / f"VG_100K{'_2' if number % 2 else ''}/{number + 1}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, quality=95)
    (root / "square.png").unlink()
    for focus in ("focus", "change"):
        records = []
        for number in range(queries):
            images = [{"val_image_id": 1 + (2 * number + n) % 40} for n in range(16)]
            condition = f"with thing {number}"
            records.append({"reference": images[0], "target": images[1], "gallery": images[2:], "condition": condition})
        write(root / f"genecis/{focus}_object.json", records)
        records = []
        for number in range(queries):
            parts = [
                {
                    "image_id": 1 + (number + square // 8) % 4,
                    "instance_bbox": [square % 8 * 48 + 24, 24, 24, 24],
                    "object_name": "square",
                }
                for square in range(6)
            ]
            records.append({"reference": parts[0], "target": parts[1], "gallery": parts[2:], "condition": "colour"})
        write(root / f"genecis/{focus}_attribute.json", records)
    return root


def patterncom(root: Path, *, nested: bool = True) -> Path:
    """PatternCom: images of three classes, two of which are one to the density's queries."""
    rows = {"color": [], "density": []}
    for place, name in enumerate(("crosswalk", "denseresidential", "sparseresidential")):
        for number in range(8):
            file = f"{name}{number:03}.jpg"
            # The second half looks like the first.
            paint(root / "images" / (name if nested else "") / file, 10 * place + number % 4)
            if place == 0:
                rows["color"].append(f"{file},color,{'white' if number < 4 else 'yellow'}")
            else:
                rows["density"].append(f"{file},density,{name.removesuffix('residential')}")
    for attribute in ("color", "context", "density", "existence", "quantity", "shape"):
        path = root / f"PatternCom/{attribute}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows.get(attribute, rows["color"])) + "\n")
    return root


def icir(root: Path, *, prefix: str = "icir/") -> Path:
    """i-CIR: two instances, three queries; a database has ten images, of which some are like the query's."""
    queries, database = [], []
    for place, (instance, texts) in enumerate((("tower", ["at night", "as a toy"]), ("old mug", ["on a table"]))):
        for number in range(10):
            path = f"database/{instance}/{number}.jpg"
            paint(root / path, 50 * place + number // 2)
            text = texts[number // 2 % len(texts)] if number < 4 else "none of these"
            database.append(f"{prefix}{path},{text},{instance}")
        for number, text in enumerate(texts):
            path = f"query/{instance}/{number}.jpg"
            paint(root / path, 50 * place + number)
            queries.append(f"{prefix}{path},{text},{instance}")
    (root / "query_files.csv").write_text("\n".join(queries) + "\n")
    (root / "database_files.csv").write_text("\n".join(database) + "\n")
    return root
