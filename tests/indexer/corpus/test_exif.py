"""Exif data of photographs become fields; wrong data cause no reject."""

import io
import random
import struct

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from indexer.corpus.exif import FIELDS, photo_fields
from indexer.corpus.images import decode_image

Base, Gps = ExifTags.Base, ExifTags.GPS
PHONE = {Base.Make: "Apple", Base.Model: "iPhone 15"}
TAKEN = {Base.DateTimeOriginal: "2024:05:01 18:30:02"}
ROME = {
    Gps.GPSLatitudeRef: "N",
    Gps.GPSLatitude: (IFDRational(41), IFDRational(53), IFDRational(24)),
    Gps.GPSLongitudeRef: "E",
    Gps.GPSLongitude: (IFDRational(12), IFDRational(29), IFDRational(32)),
}


def exif_of(base=None, details=None, place=None):
    exif = Image.Exif()
    exif.update(base or {})
    exif.get_ifd(ExifTags.IFD.Exif).update(details or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place or {})
    return exif


@pytest.fixture
def photo(encoded):
    def make(base=None, details=None, place=None, format="JPEG", size=(48, 32)):
        return encoded(Image.new("RGB", size, "teal"), format, exif=exif_of(base, details, place).tobytes())

    return make


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
@pytest.mark.parametrize("given", ["bytes", "path", "PIL"])
def test_a_photograph_says_when_with_what_and_where_it_was_taken(photo, tmp_path, format, given):
    lens = {Base.LensModel: "back camera 6.8mm", Base.LensMake: "Apple", Base.OffsetTimeOriginal: "+02:00"}
    data = photo(PHONE, TAKEN | lens, ROME, format)
    (tmp_path / "a.jpg").write_bytes(data)
    source = {"bytes": data, "path": tmp_path / "a.jpg", "PIL": Image.open(io.BytesIO(data))}[given]
    assert photo_fields(source) == {
        "taken": "2024-05-01T18:30:02+02:00",
        "year": 2024,
        "camera": "Apple iPhone 15",
        "lens": "Apple back camera 6.8mm",
        "latitude": 41.89,
        "longitude": 12.492222,
        "width": 48,
        "height": 32,
    }
    assert set(photo_fields(source)) == set(FIELDS)


def test_a_heif_photograph(photo):
    heif = pytest.importorskip("pillow_heif", reason="pip install 'underdrawing[heif]' reads HEIF")
    file = io.BytesIO()
    exif = exif_of(PHONE | {Base.Orientation: 6}, TAKEN).tobytes()
    heif.from_pillow(Image.new("RGB", (48, 32), "teal")).save(file, exif=exif)
    data = file.getvalue()
    found = photo_fields(data)
    assert (found["year"], found["camera"]) == (2024, "Apple iPhone 15")
    assert (found["width"], found["height"]) == decode_image(data).size == (32, 48)


def test_metadata_behind_the_pixels_of_a_png(photo):
    data = photo(PHONE, TAKEN, format="PNG")
    at = data.index(b"eXIf") - 4
    length = 12 + struct.unpack(">L", data[at : at + 4])[0]
    end = data.index(b"IEND") - 4
    moved = data[:at] + data[at + length : end] + data[at : at + length] + data[end:]
    assert photo_fields(moved) == photo_fields(data)
    assert photo_fields(moved)["year"] == 2024


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_size_is_that_of_the_upright_photograph(photo, turn):
    data = photo(PHONE | {Base.Orientation: turn})
    assert (photo_fields(data)["width"], photo_fields(data)["height"]) == decode_image(data).size


@pytest.mark.parametrize(
    "base", [None, {Base.Orientation: 6}, {Base.Software: "GIMP", Base.DateTime: "2020:01:01 00:00:00"}]
)
def test_an_image_that_no_camera_made_gets_no_fields(photo, encoded, base):
    assert photo_fields(photo(base)) == {}
    assert photo_fields(encoded(Image.new("RGB", (9, 9)), "PNG")) == {}


@pytest.mark.parametrize(
    ("base", "details", "taken"),
    [
        ({}, {Base.DateTimeOriginal: "2019:12:31 23:59:59"}, "2019-12-31T23:59:59"),
        ({}, {Base.DateTimeDigitized: "2019:12:31 23:59:59"}, "2019-12-31T23:59:59"),
        ({}, {Base.DateTimeOriginal: "0000:00:00 00:00:00", Base.DateTimeDigitized: "2001:02:03 04:05:06"}, "2001-02-03T04:05:06"),
        ({Base.Model: "X", Base.DateTime: "2002:02:03 04:05:06"}, {}, "2002-02-03T04:05:06"),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "2019-12-31 23:59:59"}, "2019-12-31T23:59:59"),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "2019:12:31 23:59:59", Base.OffsetTimeOriginal: "nonsense"}, "2019-12-31T23:59:59"),
        ({}, {Base.DateTimeOriginal: "2019-12-31T23:59:59.25+02:00"}, "2019-12-31T23:59:59+02:00"),
        ({}, {Base.DateTimeOriginal: "2019:12:31 23:59:59z", Base.OffsetTimeOriginal: "-03:30"}, "2019-12-31T23:59:59-03:30"),
        ({}, {Base.DateTimeOriginal: "2019/12/31 11:59:58 PM"}, "2019-12-31T23:59:58"),
        ({}, {Base.DateTimeOriginal: "2019:1:2 12:05 am"}, "2019-01-02T00:05:00"),
        ({}, {Base.DateTimeOriginal: "2019:12:31 24:00:00"}, "2020-01-01T00:00:00"),
        ({}, {Base.DateTimeOriginal: "9999:12:31 24:00:00"}, "9999-12-31"),
        ({}, {Base.DateTimeOriginal: "2019:12:31"}, "2019-12-31"),
        ({}, {Base.DateTimeOriginal: "2019:12:31   :  :  "}, "2019-12-31"),
        ({}, {Base.DateTimeOriginal: "2019:12:31 25:00:00"}, "2019-12-31"),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "2019:12:310"}, None),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "2019:13:31 23:59:59"}, None),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "yesterday"}, None),
        ({Base.Model: "X"}, {Base.DateTimeOriginal: "    :  :     :  :  "}, None),
    ],
)  # fmt: skip
def test_moments(photo, base, details, taken):
    found = photo_fields(photo(base, details))
    assert found.get("taken") == taken
    assert found.get("year") == (int(taken[:4]) if taken else None)


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
        ("Panasonic", "DMC-GX80\0\0\0", "Panasonic DMC-GX80"),
        ("", "only a model", "only a model"),
        ("FUJIFILM  ", "", "FUJIFILM"),
        ("a\x1b[31mred", "b", "a[31mred b"),
    ],
)
def test_cameras(photo, make, model, camera):
    assert photo_fields(photo({Base.Make: make, Base.Model: model}))["camera"] == camera


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({Gps.GPSLatitudeRef: "S"}, (-41.89, 12.492222)),
        ({Gps.GPSLongitudeRef: "W"}, (41.89, -12.492222)),
        ({Gps.GPSLatitude: (IFDRational(41), IFDRational(5_340, 100), IFDRational(0))}, (41.89, 12.492222)),
        ({Gps.GPSLatitudeRef: ""}, None),
        ({Gps.GPSLatitudeRef: "E"}, None),
        ({Gps.GPSLatitude: (IFDRational(91), IFDRational(0), IFDRational(0))}, None),
        ({Gps.GPSLatitude: (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))}, None),
    ],
)
def test_positions(photo, change, place):
    found = photo_fields(photo(PHONE, TAKEN, ROME | change))
    assert (found.get("latitude"), found.get("longitude")) == (place or (None, None))
    assert found["year"] == 2024


def test_a_position_needs_both_numbers(photo):
    half = {key: value for key, value in ROME.items() if key in (Gps.GPSLatitude, Gps.GPSLatitudeRef)}
    assert "latitude" not in photo_fields(photo(PHONE, TAKEN, half))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_damaged_metadata_cost_only_themselves(photo, format):
    data = photo(PHONE, TAKEN, ROME, format)
    chance = random.Random(format)
    read = 0
    for _ in range(400):
        mutant = bytearray(data)
        for _ in range(chance.choice([1, 3, 20])):
            mutant[chance.randrange(len(mutant))] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
        found = photo_fields(bytes(mutant[: chance.choice([None, chance.randrange(len(mutant))])]))
        read += "year" in found
        assert set(found) <= set(FIELDS)
        for value in found.values():
            str(value).encode()
            assert "\0" not in str(value)
    assert read > 5


def test_a_photograph_whose_metadata_cannot_be_read_is_no_error(tmp_path):
    for source in (b"", b"Exif", tmp_path / "none.jpg", b"\xff\xd8\xff" + b"Exif" * 100):
        assert photo_fields(source) == {}
