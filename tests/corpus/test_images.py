"""Good pictures come out upright in RGB; a bad one raises ItemError with its code, and nothing else."""

import hashlib
import io
import logging
import os
import pickle
import random
import socket
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from indexer.corpus.images import decode_image, encode_for_storage, image_digest
from indexer.errors import CallError, ItemError

Image.init()
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
} | ({"AVIF": ".avif"} if "AVIF" in Image.SAVE else {})  # Pillow has it since 11.3

# What has to be done to an upright picture so that a viewer's turn by this EXIF orientation undoes it.
UNDONE_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def refused():
    """The code with which a source is refused."""

    def reason(source, **options):
        with pytest.raises(ItemError) as caught:
            decode_image(source, **options)
        caught.value.detail.encode()  # can be stored
        assert "\0" not in caught.value.detail
        return caught.value.reason

    return reason


@pytest.fixture
def turned(picture):
    """A picture that lies as a camera would store it, and the EXIF that says so."""

    def make(orientation):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        return picture().transpose(UNDONE_BY[orientation]), exif

    return make


class TestEveryKindComesOutTheSame:
    @pytest.mark.parametrize("format", SUFFIXES)
    def test_format(self, picture, encoded, quarters, format):
        data = encoded(picture(), format)
        image = decode_image(data)
        assert (image.mode, image.size, quarters(image)) == ("RGB", (48, 32), "RGBW")
        assert encode_for_storage(data) == (data, SUFFIXES[format])

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_animation_gives_its_first_frame(self, picture, encoded, quarters, format):
        others = [Image.new("RGB", (48, 32), "black")] * 2
        data = encoded(picture(), format, save_all=True, append_images=others)
        assert Image.open(io.BytesIO(data)).n_frames > 1
        assert quarters(decode_image(data)) == "RGBW"

    @pytest.mark.parametrize("damaged", [False, True])
    def test_jpeg_of_two_pictures_gives_its_first(self, picture, encoded, quarters, damaged):
        data = encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32))])
        if damaged:  # Pillow would warn, which is an error here
            data = data.replace(b"MPF\0", b"MPF\0????")
        assert quarters(decode_image(data)) == "RGBW"

    @pytest.mark.parametrize(
        ("mode", "format"),
        [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("P", "PNG"), ("P", "GIF")],
    )
    def test_colour_mode(self, picture, encoded, quarters, mode, format):
        data = encoded(picture().convert(mode), format)
        assert Image.open(io.BytesIO(data)).mode == mode
        assert quarters(decode_image(data)) == "RGBW"

    def test_bilevel_and_grey(self, encoded):
        for mode in "1", "L":
            assert decode_image(encoded(Image.new(mode, (2, 2), 255), "PNG")).getpixel((0, 0)) == (
                255,
                255,
                255,
            )

    def test_16_bit_grey_is_divided_by_257(self, encoded):
        grey = Image.fromarray(np.array([[0, 257 * 100, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16))
        for format in "PNG", "TIFF":
            assert np.asarray(decode_image(encoded(grey, format)))[0, :, 0].tolist() == [
                0,
                100,
                100,
                101,
                255,
            ]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 257 * 100, 65535], [0, 100, 255]),  # fits 16 bits, so it is read as such
            ([1, 2, 3], [0, 0, 0]),
            ([-100, 0, 100], [0, 128, 255]),
            ([0, 100_000, 200_000], [0, 128, 255]),
            ([70_000, 70_000, 70_000], [0, 0, 0]),
        ],
    )
    def test_32_bit_grey(self, encoded, values, expected):
        grey = Image.fromarray(np.array([values], np.int32))
        assert np.asarray(decode_image(encoded(grey, "TIFF")))[0, :, 0].tolist() == expected

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.5, 1.0], [0, 128, 255]),
            ([0.0, 0.1, 0.2], [0, 26, 51]),
            ([-10.0, 10.0, 30.0], [0, 128, 255]),
            ([np.nan, 0.5, 1.0], [0, 128, 255]),
            ([-np.inf, 0.5, np.inf], [0, 128, 255]),
            ([np.nan, np.nan, np.nan], [0, 0, 0]),
            ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ],
    )
    def test_float_grey(self, encoded, values, expected):
        grey = Image.fromarray(np.array([values], np.float32))
        assert np.asarray(decode_image(encoded(grey, "TIFF")))[0, :, 0].tolist() == expected

    @pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
    def test_alpha_is_laid_on_white(self, encoded, format):
        pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
        options = {"lossless": True} if format == "WEBP" else {}
        image = decode_image(encoded(Image.fromarray(pixels), format, **options))
        assert [image.getpixel((x, 0)) for x in range(3)] == [(200, 0, 0), (255, 255, 255), (127, 127, 127)]

    def test_grey_with_alpha_is_laid_on_white(self, encoded):
        data = encoded(Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8)), "PNG")
        assert np.asarray(decode_image(data))[0, :, 1].tolist() == [10, 255]

    @pytest.mark.parametrize(("mode", "format"), [("P", "PNG"), ("P", "GIF"), ("L", "PNG"), ("RGB", "PNG")])
    def test_transparent_colour_is_laid_on_white(self, encoded, mode, format):
        image = Image.new(mode, (2, 1))
        see_through = image.getpixel((0, 0))
        image.putpixel((1, 0), (9, 9, 9) if mode == "RGB" else 9)
        if mode == "P":
            image.putpalette([0, 0, 0] + [9, 9, 9] * 9)
        result = decode_image(encoded(image, format, transparency=see_through))
        assert [result.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (9, 9, 9)]

    def test_transparent_value_of_16_bit_grey_is_laid_on_white(self, encoded):
        grey = Image.fromarray(np.array([[0, 257 * 100]], np.uint16))
        assert np.asarray(decode_image(encoded(grey, "PNG", transparency=0)))[0, :, 0].tolist() == [255, 100]

    def test_palette_with_alpha_for_each_colour(self, encoded):
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 100, 100, 100])
        image.putpixel((1, 0), 1)
        result = decode_image(encoded(image, "PNG", transparency=bytes([0, 255])))
        assert [result.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (100, 100, 100)]

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", UNDONE_BY)
    def test_orientation(self, turned, encoded, quarters, format, orientation):
        image, exif = turned(orientation)
        decoded = decode_image(encoded(image, format, exif=exif))
        assert (decoded.size, quarters(decoded)) == ((48, 32), "RGBW")

    def test_name_does_not_matter(self, picture, encoded, quarters, tmp_path):
        path = tmp_path / "really.jpg"
        path.write_bytes(encoded(picture(), "PNG"))
        assert quarters(decode_image(path)) == "RGBW"
        assert encode_for_storage(path)[1] == ".png"

    def test_name_that_is_not_utf_8(self, picture, encoded, quarters, tmp_path):
        path = tmp_path / os.fsdecode(b"caf\xe9.png")
        path.write_bytes(encoded(picture(), "PNG"))
        assert quarters(decode_image(path)) == "RGBW"


class TestTheResultStandsAlone:
    def test_result_outlives_its_file(self, picture, encoded, quarters, tmp_path):
        path = tmp_path / "a.png"
        path.write_bytes(encoded(picture(), "PNG"))
        image = decode_image(path)
        path.unlink()
        assert type(image) is Image.Image
        assert quarters(pickle.loads(pickle.dumps(image))) == "RGBW"

    @pytest.mark.parametrize("format", ["JPEG", "PNG"])
    def test_decoding_twice_changes_nothing(self, turned, encoded, format):
        image, exif = turned(6)
        once = decode_image(encoded(image, format, exif=exif))
        assert once.info == {}
        assert decode_image(once).tobytes() == once.tobytes()

    def test_pil_image_is_taken_and_left_alone(self, turned, encoded, quarters):
        image, exif = turned(6)
        opened = Image.open(io.BytesIO(encoded(image, "PNG", exif=exif)))
        assert quarters(decode_image(opened)) == "RGBW"
        assert opened.size == image.size
        assert opened.getexif()[ExifTags.Base.Orientation] == 6

    def test_result_shares_no_pixels_with_a_pil_image(self, picture):
        given = picture()
        decode_image(given).paste((0, 0, 0), (0, 0, 48, 32))
        assert given.getpixel((0, 0)) == (255, 0, 0)

    def test_settings_of_pillow_are_neither_used_nor_changed(self, picture, encoded, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        before = (ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
        for format in "PNG", "JPEG", "WEBP":
            assert decode_image(encoded(picture((4, 4)), format)).size == (4, 4)
        assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
        assert Image.MAX_IMAGE_PIXELS == 10

    def test_threads(self, picture, encoded):
        sources = [encoded(picture((8 * n, 60)), format) for n in range(1, 11) for format in SUFFIXES]
        alone = [decode_image(source).tobytes() for source in sources]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda source: decode_image(source).tobytes(), sources)) == alone


class TestHint:
    @pytest.mark.parametrize(("hint", "size"), [(1, (100, 75)), (75, (100, 75)), (76, (200, 150)), (600, (800, 600))])
    def test_jpeg_is_made_smaller_as_far_as_allowed(self, picture, encoded, quarters, hint, size):
        image = decode_image(encoded(picture((800, 600)), "JPEG"), hint=hint)
        assert (image.size, quarters(image)) == (size, "RGBW")

    def test_other_formats_keep_their_size(self, picture, encoded):
        assert decode_image(encoded(picture((80, 60)), "PNG"), hint=1).size == (80, 60)

    def test_hint_of_an_odd_size_and_an_orientation(self, turned, encoded, quarters):
        image, exif = turned(6)
        decoded = decode_image(encoded(image.resize((321, 479)), "JPEG", exif=exif), hint=100)
        assert min(decoded.size) >= 100
        assert decoded.width > decoded.height
        assert quarters(decoded) == "RGBW"


class TestRefusals:
    @pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "PPM"])
    @pytest.mark.parametrize("kept", [0.5, 0.9])
    def test_truncated(self, encoded, refused, format, kept):
        noise = Image.effect_noise((64, 64), 80).convert("RGB")
        data = encoded(noise, format)
        assert refused(data[: int(len(data) * kept)]) == "truncated"

    def test_empty(self, tmp_path, refused):
        (tmp_path / "a.png").touch()
        assert refused(tmp_path / "a.png") == "empty"
        assert refused(b"") == "empty"

    @pytest.mark.parametrize(
        "content",
        [b"\0", b"hello", b"PK\3\4" + bytes(100), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    )
    def test_not_an_image(self, refused, content):
        assert refused(content) == "not-an-image"

    @pytest.mark.parametrize(
        "head", [b"", b"\xef\xbb\xbf", b"<?xml version='1.0'?>\n<!DOCTYPE svg>\n", b"<!-- a drawing -->\n "]
    )
    def test_svg(self, refused, head):
        assert refused(head + b'<svg xmlns="http://www.w3.org/2000/svg"></svg>') == "svg"

    def test_heif(self, refused):
        assert refused(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "unsupported-format"

    def test_folder_with_the_name_of_a_picture(self, tmp_path, refused):
        (tmp_path / "x.png").mkdir()
        assert refused(tmp_path / "x.png") == "not-a-file"

    def test_fifo_and_socket_do_not_hang(self, tmp_path, refused, deadline):
        os.mkfifo(tmp_path / "fifo.png")
        with deadline():
            assert refused(tmp_path / "fifo.png") == "not-a-file"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket.png"))
            assert refused(tmp_path / "socket.png") == "not-a-file"

    def test_missing(self, tmp_path, refused):
        (tmp_path / "file").touch()
        (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing.png")
        for name in (
            "nothing.png",
            "dangling.png",
            "file/x.png",
            "nul\0.png",
            "\ud800.png",
            os.fsdecode(b"\xff.png"),
        ):
            assert refused(tmp_path / name) == "missing"

    def test_link_to_itself(self, tmp_path, refused):
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        assert refused(tmp_path / "loop.png") == "unreadable"

    def test_permissions(self, tmp_path, refused, monkeypatch):
        (tmp_path / "secret.png").touch()

        def deny(path, flags):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr(os, "open", deny)  # not by chmod, which does not bind root
        assert refused(tmp_path / "secret.png") == "unreadable"

    def test_error_while_reading(self, tmp_path, refused, monkeypatch):
        (tmp_path / "a.png").touch()
        for_writing = os.open(tmp_path / "a.png", os.O_WRONLY)
        monkeypatch.setattr(os, "open", lambda path, flags: for_writing)
        assert refused(tmp_path / "a.png") == "unreadable"

    def test_too_many_bytes(self, picture, encoded, tmp_path, refused):
        data = encoded(picture(), "PNG")
        (tmp_path / "a.png").write_bytes(data)
        for source in data, tmp_path / "a.png":
            assert refused(source, max_bytes=len(data) - 1) == "too-many-bytes"
            assert decode_image(source, max_bytes=len(data)).size == (48, 32)

    def test_str_is_no_path(self, tmp_path):
        with pytest.raises(CallError, match="not str"):
            decode_image("a.png")

    def test_closed_pil_image(self, picture, refused):
        image = picture()
        image.close()
        assert refused(image) == "decode-failed"

    def test_unfinished_pil_image(self, picture, encoded, refused):
        data = encoded(picture((200, 200)), "BMP")
        assert refused(Image.open(io.BytesIO(data[:1000]))) == "truncated"

    def test_colour_mode_without_a_way_to_rgb(self, refused):
        assert refused(Image.new("La", (4, 4))) == "decode-failed"

    def test_tag_of_the_wrong_type(self, picture, encoded, refused):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = "XMP, which should be bytes"
        tags.tagtype[700] = 2
        assert refused(encoded(picture(), "TIFF", tiffinfo=tags)) == "decode-failed"

    def test_damaged_exif_does_not_cost_the_picture(self, picture, encoded, quarters):
        data = encoded(picture(), "PNG", exif=b"Exif\0\0this is no EXIF at all")
        assert quarters(decode_image(data)) == "RGBW"

    def test_errors_cross_processes(self, refused):
        with pytest.raises(ItemError) as caught:
            decode_image(b"")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.reason, again.detail) == (caught.value.reason, caught.value.detail)
        assert type(again.reason) is str


class TestPixelLimit:
    """The header decides, and nothing is decoded of what is refused."""

    @pytest.fixture
    def claiming(self, encoded):
        """A tiny file whose header claims another size."""

        def make(format, width, height):
            data = bytearray(encoded(Image.new("P" if format == "GIF" else "L", (8, 8)), format))
            if format == "PNG":
                struct.pack_into(">II", data, 16, width, height)
                struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
            elif format == "JPEG":
                struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
            elif format == "GIF":
                struct.pack_into("<HH", data, 6, width, height)
            elif format == "BMP":
                struct.pack_into("<ii", data, 18, width, height)
            return bytes(data)

        return make

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP"])
    def test_bomb(self, claiming, refused, format):
        assert refused(claiming(format, 60_000, 60_000)) == "too-many-pixels"

    def test_limit_is_exact(self, picture, encoded, claiming, refused):
        assert refused(claiming("PNG", 10_001, 10_000)) == "too-many-pixels"
        assert refused(claiming("PNG", 10_000, 10_000)) == "truncated"  # allowed, but there are no such pixels
        data = encoded(picture(), "PNG")
        assert decode_image(data, max_pixels=48 * 32).size == (48, 32)
        assert refused(data, max_pixels=48 * 32 - 1) == "too-many-pixels"
        assert refused(picture(), max_pixels=48 * 32 - 1) == "too-many-pixels"

    @pytest.mark.parametrize("format", ["TIFF", "GIF"])
    def test_no_warning_of_pillow_leaks(self, encoded, claiming, refused, format):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            big = Image.new("1", (9_500, 9_500))  # between Pillow's limit and ours
            data = claiming("GIF", 9_500, 9_500) if format == "GIF" else encoded(big, "TIFF", compression="group4")
            assert refused(data) == "too-many-pixels"
        assert seen == []

    def test_grown_canvas(self, encoded, refused):
        """The first frame of a GIF may lie outside of the canvas that its header claims, and widens it."""
        data = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
        frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
        struct.pack_into("<HHHH", data, frame + 1, 60_000, 60_000, 8, 8)
        assert refused(bytes(data)) == "too-many-pixels"

    def test_hundred_megapixels(self, encoded):
        data = encoded(Image.new("L", (10_000, 10_000), 200), "JPEG")
        image = decode_image(data, hint=224)
        assert (image.size, image.getpixel((600, 600))) == ((1_250, 1_250), (200, 200, 200))


class TestStorage:
    def test_digest_is_that_of_the_encoded_bytes(self, picture, encoded, tmp_path):
        data = encoded(picture(), "JPEG")
        path = tmp_path / "a.jpg"
        path.write_bytes(data)
        assert image_digest(path) == image_digest(data) == hashlib.sha256(data).hexdigest()
        assert encode_for_storage(path) == encode_for_storage(data) == (data, ".jpg")

    def test_pil_image_becomes_a_png_of_the_same_digest(self, picture):
        data, suffix = encode_for_storage(picture())
        assert suffix == ".png"
        assert image_digest(picture()) == image_digest(data)
        assert decode_image(data).tobytes() == picture().tobytes()

    def test_only_pixels_count(self, turned, picture, encoded):
        image, exif = turned(8)
        noisy = picture()
        noisy.info = {"dpi": (300, 300), "icc_profile": b"x" * 200, "comment": "holiday"}
        lying = Image.open(io.BytesIO(encoded(image, "PNG", exif=exif)))
        assert image_digest(picture()) == image_digest(noisy) == image_digest(lying)
        assert image_digest(picture()) != image_digest(picture((48, 34)))

    def test_transparency_is_kept(self):
        data, _ = encode_for_storage(Image.new("RGBA", (2, 2), (1, 2, 3, 4)))
        assert Image.open(io.BytesIO(data)).getpixel((0, 0)) == (1, 2, 3, 4)

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "I", "I;16", "F"])
    def test_every_mode_can_be_stored(self, mode):
        data, suffix = encode_for_storage(Image.new(mode, (3, 2)))
        assert (decode_image(data).size, suffix) == ((3, 2), ".png")

    def test_refusals(self, tmp_path):
        for source, reason in [
            (b"", "empty"),
            (b"hello", "not-an-image"),
            (tmp_path / "none.png", "missing"),
        ]:
            with pytest.raises(ItemError) as caught:
                encode_for_storage(source)
            assert caught.value.reason == reason
        with pytest.raises(ItemError, match="does not exist"):
            image_digest(tmp_path / "none.png")


class TestMutations:
    """A mutated file decodes or is refused, be Pillow's warnings ignored or errors."""

    @pytest.mark.parametrize("action", ["ignore", "error"])
    @pytest.mark.parametrize("format", SUFFIXES)
    def test_mutated_files(self, encoded, format, action, capfd):
        logging.disable()  # Pillow's TIFF reader logs, and libtiff writes to stderr; capfd keeps that
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        exif[ExifTags.Base.XResolution] = 72.0
        options = {"exif": exif} if format in {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"} else {}
        data = encoded(Image.effect_noise((24, 16), 60).convert("RGB"), format, **options)
        chance = random.Random(f"{format} {action}")
        outcomes = {"decoded": 0}
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            for _ in range(500):
                try:
                    image = decode_image(_mutated(data, chance), max_pixels=1_000_000)
                    outcomes["decoded"] += image.mode == "RGB"
                except ItemError as error:
                    outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
        logging.disable(logging.NOTSET)
        assert sum(outcomes.values()) == 500
        assert len(outcomes) > 2, "the mutations are too tame to test anything"


def _mutated(data, chance):
    mutant = bytearray(data)
    if chance.random() < 0.3:
        return bytes(mutant[: chance.randrange(len(mutant))])
    for _ in range(chance.choice([1, 2, 4, 16])):
        reach = chance.choice([len(mutant), min(len(mutant), 120)])  # headers are where decoders are fragile
        mutant[chance.randrange(reach)] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(mutant)
