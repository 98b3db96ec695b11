"""Build the bundled emoji corpus: one Parquet file of 64-pixel images with what Unicode says about them.

Run as `python -m benchmarks.emoji.build [--packages DIR] [--out FILE] [--check]`. Without `--packages` it
fetches the pinned npm packages with `npm pack`. The file is the same byte for byte for the same versions of
Pillow, libwebp and pyarrow (printed beside the checksum); another version of one of them may encode the same rows
differently. This module does not know the composed queries (`build_queries.py`) or any model.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, features

from benchmarks.emoji.concepts import Concept, Split, assign_splits, canonical, read_concepts

PACKAGES = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "emojibase-data": "17.0.0",
}
BUNDLED = Path(__file__).parents[2] / "indexer" / "bundled"
SIZE = 64
QUALITY = 93
ROWS_PER_GROUP = 1024
# Root mean square difference of the pixels (of 255) below which two images of a vendor count as the same
# one: re-encodings of one image lie below 1.3, the closest images that a person can distinguish above 2.1.
SAME_DRAWING = 2.0

# The Fluent package also holds images that Microsoft's MIT-licensed repository (microsoft/fluentui-emoji)
# lacks, or that show a trademark: flags of countries in the waving style of other sets, families and
# couples, the paperclip with eyes, the game pad, and people at a laptop with a logo. They are left out.
UNPROVEN_FLUENT = ("country-flag", "subdivision-flag", "family")
TRADEMARKS = ("paperclip", "video game", "technologist", "man technologist", "woman technologist")
# Files of the Fluent package that show a skin tone other than their name says, without a regular pattern.
WRONG_FLUENT = ("1F6B5-1F3FB", "1F6B5-1F3FC", "1F6B5-1F3FD", "1F6B5-1F3FE", "1F6B5-1F3FF", "1FAC4-1F3FF")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("concept", pa.string(), nullable=False),
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("emoji", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("subgroup", pa.string(), nullable=False),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
        pa.field("wordings", pa.list_(pa.string()), nullable=False),
        pa.field("skin_tone", pa.list_(pa.string()), nullable=False),
        pa.field("gender", pa.string()),
        pa.field("base", pa.string(), nullable=False),
        pa.field("version", pa.float64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("drawing", pa.string(), nullable=False),
    ]
)


class BuildError(Exception):
    """The corpus cannot be built from these packages; the message says why."""


@dataclass(frozen=True)
class Drawing:
    """One concept as one vendor draws it; `image` is the WebP file."""

    vendor: str
    concept: Concept
    image: bytes

    @property
    def id(self) -> str:
        """The document id, as in `noto/1F44B-1F3FD`."""
        return f"{self.vendor}/{self.concept.hexcode}"


def datasource_files(package: Path, vendor: str) -> dict[str, Path]:
    """The 64-pixel files that the vendor itself made, by canonical hexcode.

    Where the flag is false, the package may hold another vendor's art under the same name; it is left out.
    """
    found = {}
    for base in json.loads((package / "emoji.json").read_text(encoding="utf-8")):
        for entry in (base, *base.get("skin_variations", {}).values()):
            if entry[f"has_img_{vendor}"]:
                found[canonical(entry["unified"])] = package / "img" / vendor / "64" / entry["image"]
    return found


def fluent_code(name: str) -> str:
    """The canonical hexcode of what a file of the Fluent package shows; some names are wrong.

    All files swap the medium-light and the medium skin tone, and those of the deaf man and the deaf woman swap the
    gender; both were found by measuring and looking, and hold for every file of their kind.
    """
    exchanged = {"1F3FC": "1F3FD", "1F3FD": "1F3FC"}
    if name.upper().startswith("1F9CF"):
        exchanged |= {"2640": "2642", "2642": "2640"}
    return "-".join(exchanged.get(part, part) for part in canonical(name).split("-"))


def fluent_files(package: Path, concepts: Mapping[str, Concept]) -> dict[str, Path]:
    """The 3D renders by canonical hexcode; of two spellings of one code, the first in name order counts."""
    found: dict[str, Path] = {}
    for path in sorted((package / "assets").glob("*.webp")):
        concept = concepts.get(fluent_code(path.stem))
        if concept is None or concept.subgroup in UNPROVEN_FLUENT or concept.text.startswith("family"):
            continue
        if concept.base_text not in TRADEMARKS and canonical(path.stem) not in WRONG_FLUENT:
            found.setdefault(canonical(concept.hexcode), path)
    return found


def flatten(image: Image.Image) -> Image.Image:
    """The image on white, as 64x64 RGB; flattened before resizing, so that no transparent color bleeds in."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    rgb = white.convert("RGB")
    return rgb if rgb.size == (SIZE, SIZE) else rgb.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def encode(image: Image.Image) -> bytes:
    """The image as WebP, slowest method; sharp chroma keeps the edges of saturated shapes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=6, use_sharp_yuv=True)
    return buffer.getvalue()


def close_pairs(pixels: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """The pairs of rows of `pixels` (n, ...) whose root mean square difference is below the threshold."""
    rows = pixels.reshape(len(pixels), -1).astype(np.float32)
    squares = (rows**2).sum(axis=1)
    pairs = []
    for start in range(0, len(rows), 512):
        block = rows[start : start + 512]
        distance = squares[start : start + 512, None] + squares[None] - 2 * block @ rows.T
        # The expanded square is only accurate to a few units here; close pairs are measured again exactly.
        for i, j in zip(*np.nonzero(distance < rows.shape[1] * (threshold + 2) ** 2), strict=True):
            a, b = start + int(i), int(j)
            if a < b and (difference := float(np.sqrt(np.mean((rows[a] - rows[b]) ** 2)))) < threshold:
                pairs.append((a, b, difference))
    return pairs


def same_drawings(pixels: np.ndarray, threshold: float = SAME_DRAWING) -> list[int]:
    """For each row of `pixels` (n, ...), the first row that shows the same image (usually itself).

    Chains count: if a is like b and b is like c, all three are one image.
    """
    first = list(range(len(pixels)))

    def root(index: int) -> int:
        while first[index] != index:
            index = first[index]
        return index

    for a, b, _ in close_pairs(pixels, threshold):
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return [root(index) for index in range(len(pixels))]


def read_drawings(packages: Path) -> list[Drawing]:
    """All images of the three vendors, in CLDR order of the concepts, Noto, Twemoji, Fluent."""
    concepts = read_concepts(packages / "emojibase-data")
    files = {
        "noto": datasource_files(packages / "emoji-datasource-google", "google"),
        "twemoji": datasource_files(packages / "emoji-datasource-twitter", "twitter"),
        "fluent": fluent_files(packages / "fluent-emoji-3d", concepts),
    }
    drawings = []
    for code, concept in concepts.items():
        for vendor, paths in files.items():
            if code in paths:
                with Image.open(paths[code]) as image:
                    drawings.append(Drawing(vendor, concept, encode(flatten(image))))
    return drawings


def decode(image: bytes) -> np.ndarray:
    """The pixels of an encoded image, (64, 64, 3) uint8."""
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


def first_alike(drawings: Sequence[Drawing]) -> dict[str, str]:
    """For each document id, the first id of the same vendor that shows the same image."""
    alike: dict[str, str] = {}
    for vendor in ("noto", "twemoji", "fluent"):
        own = [drawing for drawing in drawings if drawing.vendor == vendor]
        if own:
            firsts = same_drawings(np.stack([decode(drawing.image) for drawing in own]))
            alike |= {drawing.id: own[first].id for drawing, first in zip(own, firsts, strict=True)}
    return alike


def alike_concepts(alike: Mapping[str, str]) -> list[list[str]]:
    """Groups of hexcodes for which some vendor has the same image, joined over vendors."""
    group_of: dict[str, list[str]] = {}
    for one, other in alike.items():
        a, b = (group_of.setdefault(code, [code]) for code in (one.split("/")[1], other.split("/")[1]))
        if a is not b:
            a.extend(b)
            group_of |= {code: a for code in b}
    groups = {id(group): group for group in group_of.values() if len(group) > 1}
    return [sorted(group) for group in groups.values()]


def to_table(drawings: Sequence[Drawing]) -> pa.Table:
    """The rows of the corpus."""
    alike = first_alike(drawings)
    concepts = {drawing.concept.hexcode: drawing.concept for drawing in drawings}
    splits: dict[str, Split] = assign_splits(list(concepts.values()), alike_concepts(alike))
    rows = [
        {
            "id": drawing.id,
            "concept": concept.hexcode,
            "vendor": drawing.vendor,
            "text": concept.text,
            "image": drawing.image,
            "emoji": concept.emoji,
            "group": concept.group,
            "subgroup": concept.subgroup,
            "keywords": list(concept.keywords),
            "wordings": list(concept.wordings),
            "skin_tone": list(concept.skin_tone),
            "gender": concept.gender,
            "base": concept.base,
            "version": concept.version,
            "split": splits[concept.hexcode],
            "drawing": alike[drawing.id],
        }
        for drawing in drawings
        for concept in (drawing.concept,)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(table: pa.Table, out: Path) -> None:
    """Write the Parquet file with fixed settings; WebP bytes do not compress further."""
    plain = [name for name in table.column_names if name not in ("id", "image")]
    pq.write_table(
        table,
        out,
        row_group_size=ROWS_PER_GROUP,
        use_dictionary=plain,
        compression={name: "none" if name == "image" else "zstd" for name in table.column_names},
        write_statistics=False,
        version="2.6",
        store_schema=False,
    )


def fetch(folder: Path) -> Path:
    """Fetch the pinned packages from the configured npm registry and unpack them into `folder`."""
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError("npm is not on the path: install Node.js, or pass --packages with the packages in it")
    for name, version in PACKAGES.items():
        subprocess.run(  # noqa: S603 - fixed arguments
            [npm, "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    return folder


def unpack(source: Path, folder: Path) -> Path:
    """Unpack the tarballs that `npm pack` left in `source`; each package is named by the last part of its name."""
    for name, version in PACKAGES.items():
        tarball = source / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
        if not tarball.is_file():
            raise BuildError(f"{tarball.name} is not in {source}; run `npm pack {name}@{version}` there")
        with tarfile.open(tarball) as archive:
            archive.extractall(folder, members=_needed(archive), filter="data")
        (folder / "package").rename(folder / name.split("/")[-1])
    return folder


def _needed(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    # The sheets are most of each datasource package, and none of them is read.
    folders = ("/img/google/64/", "/img/twitter/64/", "/assets/", "/en/", "/en-gb/", "/meta/")
    for member in archive:
        if member.name == "package/emoji.json" or any(folder in f"/{member.name}" for folder in folders):
            yield member


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> str:
    """The versions that the bytes of the file depend on."""
    return f"Pillow {PIL.__version__}, libwebp {features.version('webp')}, pyarrow {pa.__version__}"


def publish(built: Path, out: Path, check: bool) -> int:
    """Move the built file to its place, or only compare it with the existing file; returns the exit status."""
    print(f"{sha256(built)}  {out.name}  {built.stat().st_size:,} bytes  ({versions()})")
    if not check:
        shutil.move(built, out)
        return 0
    if not out.is_file() or sha256(out) != sha256(built):
        print(f"{out} differs from the built file; rebuild it without --check", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji.build", description="Build the emoji corpus.")
    parser.add_argument("--packages", type=Path, help="folder with the four npm tarballs; default: npm pack")
    parser.add_argument("--out", type=Path, default=BUNDLED / "emoji.parquet")
    parser.add_argument("--check", action="store_true", help="compare with the file at --out, write nothing")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            unpack(options.packages or fetch(folder), folder)
            table = to_table(read_drawings(folder))
        except BuildError as error:
            print(error, file=sys.stderr)
            return 1
        write(table, folder / "emoji.parquet")
        return publish(folder / "emoji.parquet", options.out, options.check)


if __name__ == "__main__":
    raise SystemExit(main())
