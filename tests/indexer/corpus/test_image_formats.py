"""The format of a file is recognized by its first bytes, whatever its name."""

import builtins
import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from indexer.corpus.image_formats import HEAD, SUFFIXES, TAIL, foreign_format, image_format
from indexer.corpus.images import decode_image, encode_for_storage
from indexer.errors import ItemError

Image.init()
pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'underdrawing[heif]' reads HEIF")


def heif(image, **options):
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


@pytest.fixture
def a_file_of(picture, encoded):
    """A small file of a format that is read."""

    def make(name):
        if name == "HEIF":
            return heif(picture())
        if name == "PFM":
            return encoded(Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)), "PPM")
        return encoded(picture(), name)

    return make


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_format_is_told_by_its_ends_and_decoded_under_any_name(name, a_file_of, tmp_path, quarters):
    data = a_file_of(name)
    assert image_format(data[:HEAD], data[-TAIL:]) == name
    (tmp_path / "it.bin").write_bytes(data)
    assert quarters(decode_image(tmp_path / "it.bin")) == "RGBW"
    assert encode_for_storage(data) == (data, SUFFIXES[name])


def test_float_map(a_file_of):
    data = a_file_of("PFM")
    assert (data[:2], image_format(data[:HEAD])) == (b"Pf", "PPM")
    assert np.asarray(decode_image(data))[:, :, 0].max() == 255


@pytest.mark.parametrize("brand", [b"avif", b"avis"])
def test_av1_by_brand_even_where_the_first_brand_says_only_that_it_is_a_picture(brand):
    direct = struct.pack(">L", 20) + b"ftyp" + brand + bytes(4) + b"mif1"
    behind = struct.pack(">L", 24) + b"ftypmif1" + bytes(4) + b"mif1" + brand
    assert [image_format(head) for head in (direct, behind)] == ["AVIF", "AVIF"]


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"heim"])
def test_hevc_by_brand(brand):
    direct = struct.pack(">L", 20) + b"ftyp" + brand + bytes(4) + b"mif1"
    behind = struct.pack(">L", 24) + b"ftypmif1" + bytes(4) + b"mif1" + brand
    assert [image_format(head) for head in (direct, behind)] == ["HEIF", "HEIF"]


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\0" * 300, b"P", b"P5", b"P6 is the sixth of them", b"BM", b"BMW, a maker of cars", b"GIF", b"II*",
        b"(\0\0\0 a text", b"RIFF\0\0\0\0WAVE", struct.pack(">L", 24) + b"ftypisom" + bytes(4) + b"isomavc1",
        b"II*\0\x10\0\0\0CR\x02\0", b'{"image": "a.png"}', b"PK\3\4", b"%PDF-1.7",
    ],
)  # fmt: skip
def test_what_is_no_image(head):
    assert image_format(head) is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(20), "camera raw"),
        (struct.pack(">L", 24) + b"ftypcrx " + bytes(12), "camera raw"),
        (b"FUJIFILMCCD-RAW " + bytes(20), "camera raw"),
        (b"PF\n3 3\n-1.0\n" + bytes(108), "color PFM"),
        (b"\0\0\1\0\1\0" + bytes(20), "Windows icon"),
    ],
)
def test_a_format_that_is_known_and_not_read_is_refused_by_name(head, name):
    assert (image_format(head), foreign_format(head)) == (None, name)
    with pytest.raises(ItemError, match=name) as caught:
        decode_image(head)
    assert caught.value.reason == "unsupported-format"


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_a_raw_photograph_in_a_tiff_is_not_taken_for_its_thumbnail(tags, picture, encoded):
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
        directory.tagtype[tag] = 1 if isinstance(value, bytes) else 4
    with pytest.raises(ItemError, match="raw photograph") as caught:
        decode_image(encoded(picture(), "TIFF", tiffinfo=directory))
    assert caught.value.reason == "unsupported-format"


def test_targa_without_a_signature_is_not_guessed(a_file_of):
    data = a_file_of("TGA")[:-TAIL]
    assert image_format(data[:HEAD], data[-TAIL:]) is None
    with pytest.raises(ItemError, match="Targa") as caught:
        decode_image(data)
    assert caught.value.reason == "unsupported-format"


class TestHeif:
    def test_is_upright(self, picture, quarters):
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = picture().transpose(Image.Transpose.ROTATE_90)
        upright = decode_image(heif(lying, exif=exif.tobytes()))
        assert (upright.size, quarters(upright)) == ((48, 32), "RGBW")

    def test_nothing_is_registered_with_pillow(self, picture):
        decode_image(heif(picture()))
        assert "HEIF" not in Image.OPEN

    def test_without_the_package_it_is_refused_with_the_line_that_installs_it(self, picture, monkeypatch):
        data, real = heif(picture()), builtins.__import__

        def without(name, *rest, **more):
            if name.startswith("pillow_heif"):
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ItemError, match=r"pip install 'underdrawing\[heif\]'") as caught:
            decode_image(data)
        assert caught.value.reason == "missing-package"

    def test_limit(self, picture):
        with pytest.raises(ItemError) as caught:
            decode_image(heif(picture()), max_pixels=48 * 32 - 1)
        assert caught.value.reason == "too-many-pixels"

    def test_damaged(self, picture):
        data = heif(picture())
        for kept in 0.3, 0.7, 0.95:
            with pytest.raises(ItemError) as caught:
                decode_image(data[: int(len(data) * kept)])
            assert caught.value.reason in {"truncated", "decode-failed"}
