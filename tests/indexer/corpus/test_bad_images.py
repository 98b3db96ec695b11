"""A bad image raises an ItemError with its reason, and no other exception."""

import io
import logging
import os
import pickle
import random
import socket
import struct
import warnings
import zlib

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from indexer.corpus.images import decode_image
from indexer.errors import CallError, ItemError

Image.init()
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM"] + ["AVIF"] * ("AVIF" in Image.SAVE)


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
        assert refused(claiming("PNG", 8_193, 8_192)) == "too-many-pixels"
        assert refused(claiming("PNG", 8_192, 8_192)) == "truncated"  # allowed, but there are no such pixels
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


class TestMutations:
    """A mutated file decodes or is refused, be Pillow's warnings ignored or errors."""

    @pytest.mark.parametrize("action", ["ignore", "error"])
    @pytest.mark.parametrize("format", FORMATS)
    def test_mutated_files(self, encoded, format, action, monkeypatch):
        monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # Pillow's TIFF reader logs
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
