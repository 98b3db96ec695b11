"""Small files that would take minutes or gigabytes to decode are refused before decoding."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from indexer.corpus import image_bounds, images
from indexer.corpus.image_bounds import jpeg_coefficients
from indexer.corpus.images import MAX_PIXELS, decode_image, decoding_at_most
from indexer.errors import CallError, ItemError


@pytest.fixture
def refused(monkeypatch):
    """The code with which a source is refused, without a pixel having been decoded."""

    def loading(self):
        raise AssertionError("its pixels are decoded")

    def reason(source, **options):
        monkeypatch.setattr(ImageFile.ImageFile, "load", loading)
        with pytest.raises(ItemError) as caught:
            decode_image(source, **options)
        monkeypatch.undo()
        return caught.value.reason

    return reason


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind, content):
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png_of(width, height, colour, chunks=b""):
    """A valid PNG of any size in a few kilobytes, written row by row."""
    depth = {2: 3, 6: 4}[colour]
    packer, rows = zlib.compressobj(9), []
    for _ in range(height):
        rows.append(packer.compress(bytes(1 + width * depth)))
    pixels = b"".join(rows) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class TestLargePhotographs:
    @pytest.mark.parametrize("size", [(12_032, 9_024), (16_320, 12_240)])
    def test_a_jpeg_of_a_hundred_megapixels_and_more_is_read_reduced(self, encoded, size):
        data = encoded(Image.new("L", size, 90), "JPEG", quality=20)
        image = decode_image(data)
        assert image.size == (size[0] // 2, size[1] // 2)
        assert abs(image.getpixel((500, 500))[0] - 90) < 4

    @pytest.mark.parametrize(
        ("most", "size"), [(48 * 32, (48, 32)), (48 * 32 - 1, (24, 16)), (24 * 16 - 1, (12, 8)), (96, (12, 8))]
    )
    def test_no_more_is_decoded_than_is_allowed(self, picture, encoded, quarters, most, size):
        image = decode_image(encoded(picture(), "JPEG", quality=95), max_pixels=most)
        assert image.size == size
        assert image.width * image.height <= most

    def test_what_is_too_large_even_then_is_refused_with_the_option(self, picture, encoded, refused):
        data = encoded(picture(), "JPEG")
        assert refused(data, max_pixels=95) == "too-many-pixels"
        with pytest.raises(ItemError, match="`max_pixels`"):
            decode_image(data, max_pixels=95)
        assert refused(data, max_pixels=95, hint=1) == "too-many-pixels"

    def test_a_hint_may_make_it_smaller_still(self, picture, encoded):
        data = encoded(picture((800, 640)), "JPEG")
        assert decode_image(data, max_pixels=800 * 640 - 1, hint=80).size == (100, 80)
        assert decode_image(data, max_pixels=800 * 640 - 1, hint=640).size == (400, 320)

    @pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "TGA"])
    def test_other_formats_are_refused(self, picture, encoded, refused, format):
        assert refused(encoded(picture(), format), max_pixels=48 * 32 - 1) == "too-many-pixels"

    def test_the_limit_of_a_thread_is_that_of_its_block(self, picture, encoded):
        data = encoded(picture(), "PNG")
        with decoding_at_most(10):
            with pytest.raises(ItemError, match="the limits? (is|are) 10"):
                decode_image(data)
            with decoding_at_most(None):
                assert decode_image(data).size == (48, 32)
        assert decode_image(data).size == (48, 32)
        with pytest.raises(CallError, match="at least 1"), decoding_at_most(0):
            pass

    def test_coefficients_of_a_progressive_jpeg_count(self, picture, encoded, refused):
        plain, several = (
            encoded(picture((640, 480)), "JPEG", progressive=each, subsampling=2) for each in (False, True)
        )
        assert jpeg_coefficients(plain) == 0
        assert jpeg_coefficients(several) == 640 * 480 * 3
        assert jpeg_coefficients(encoded(picture((640, 480)), "JPEG", progressive=True, subsampling=0)) == 640 * 480 * 6
        assert decode_image(several, max_pixels=640 * 480 // 4).size == (320, 240)
        assert refused(several, max_pixels=640 * 480 // 4 - 1) == "too-many-pixels"
        assert decode_image(plain, max_pixels=640 * 480 // 4 - 1).size == (160, 120)


class TestBombs:
    @pytest.mark.parametrize("colour", [2, 6])
    def test_a_png_of_a_hundred_million_pixels_in_a_few_kilobytes(self, refused, colour):
        data = png_of(10_000, 10_000, colour)
        assert len(data) < 500_000
        assert refused(data) == "too-many-pixels"

    def test_a_jpeg_of_many_scans(self, encoded, refused, picture):
        data = encoded(picture((512, 512)), "JPEG", progressive=True)
        last = data.rindex(b"\xff\xda")
        scan = data[last:-2]
        assert decode_image(data[:-2] + scan * 5 + b"\xff\xd9").size == (512, 512)
        assert refused(data[:-2] + scan * 5_000 + b"\xff\xd9") == "too-complex"

    def test_scans_are_weighed_by_their_pixels(self, encoded, refused, picture, monkeypatch):
        data = encoded(picture((512, 512)), "JPEG", progressive=True)
        scans = image_bounds._jpeg_scans(data)[1]
        monkeypatch.setattr(image_bounds, "MAX_SCANNED", scans * 512 * 512)
        assert decode_image(data).size == (512, 512)
        monkeypatch.setattr(image_bounds, "MAX_SCANNED", scans * 512 * 512 - 1)
        assert image_bounds._jpeg_scans(data)[1] == scans
        with pytest.raises(ItemError, match="scans"):
            decode_image(data)

    def test_what_looks_like_a_scan_behind_the_image_does_not_count(self, encoded, picture, quarters):
        """A motion photograph is a JPEG with a film behind it, and an MPO one with a second JPEG."""
        data = encoded(picture((64, 64)), "JPEG", progressive=True)
        assert quarters(decode_image(data + (b"\xff\xda\0\x0c" + bytes(10)) * 5_000)) == "RGBW"
        thumbnail = segment(0xE1, b"Exif\0\0" + b"\xff\xda" * 5_000)
        assert quarters(decode_image(data[:2] + thumbnail + data[2:])) == "RGBW"

    @pytest.mark.parametrize(
        "filling",
        [segment(0xE1, b"Exif\0\0x") * 20_000, segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 600, b"\0" * 100_000],
        ids=["segments", "bytes", "nothing"],
    )
    def test_a_jpeg_of_much_before_its_pixels(self, encoded, picture, refused, filling):
        data = encoded(picture(), "JPEG")
        at = 4 + data[5]  # behind the first segment
        assert refused(data[:at] + filling + data[at:]) == "too-complex"

    def test_a_png_of_many_chunks(self, refused):
        assert refused(png_of(4, 4, 2, chunk(b"teSt", b"") * 20_000)) == "too-complex"
        assert decode_image(png_of(4, 4, 2, chunk(b"teSt", b"") * 200)).size == (4, 4)

    def test_a_gif_of_comments(self, encoded, picture, refused):
        data = encoded(picture(), "GIF")
        frame = data.index(b",", 13 + (3 << ((data[10] & 7) + 1)))
        comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 20_000 + b"\0"
        assert refused(data[:frame] + comment + data[frame:]) == "too-complex"
        assert decode_image(data[:frame] + b"!\xfe\3abc\0" + data[frame:]).size == (48, 32)

    @pytest.mark.parametrize("magic", ["P1", "P2", "P3", "P4", "P5", "P6", "Pf"])
    def test_a_comment_in_a_ppm(self, refused, magic):
        numbers = {"P1": b"1 0 1 0", "P4": b"\x80\x80"}.get(magic, b"1 " * 12 if magic in ("P2", "P3") else bytes(16))
        rest = b"" if magic in ("P1", "P4") else b"1.0\n" if magic == "Pf" else b"255\n"
        head = magic.encode() + b"\n"
        assert decode_image(head + b"# two\n# lines\n2 # wide\n2\n" + rest + numbers).size == (2, 2)
        assert refused(head + b"#" + b"x" * 5_000_000 + b"\n2 2\n" + rest + numbers) == "too-complex"
        assert refused(head + b"#\n" * 1_000_000 + b"2 2\n" + rest + numbers) == "too-complex"

    @pytest.mark.parametrize("comment", [b"#\n", b"#" + b"x" * 200 + b"\n"])
    def test_comments_among_the_numbers_of_a_plain_ppm(self, comment):
        data = b"P2\n2 2\n255\n" + comment * 20_000 + b"1 2 " + comment * 20_000 + b"3 4"
        assert np.asarray(decode_image(data))[:, :, 0].tolist() == [[1, 2], [3, 4]]
        assert b"#" not in image_bounds.checked_structure("PPM", data, 100)  # what Pillow takes one by one

    @pytest.mark.parametrize(("magic", "bands"), [(b"P5", 1), (b"P6", 3)])
    @pytest.mark.parametrize("most", [1, 100, 254, 256, 1_023, 65_534])
    def test_numbers_up_to_another_white_are_what_pillow_makes_of_them(self, magic, bands, most):
        numbers = np.random.default_rng(most).integers(0, most + 2, 20 * bands)
        body = numbers.astype(np.uint8 if most < 256 else ">u2").tobytes()
        data = magic + b"\n5 4\n%d\n" % most + body
        assert decode_image(data).tobytes() == decode_image(Image.open(io.BytesIO(data))).tobytes()

    @pytest.mark.parametrize("head", [b"P3\n9999 999\n255\n", b"P2\n9999 999\n255\n"])
    def test_what_is_decoded_a_number_at_a_time_is_bounded_by_its_bytes(self, refused, head, monkeypatch):
        monkeypatch.setattr(image_bounds, "MAX_SLOW", 1_000)
        assert refused(head + b"1 " * 600) == "too-complex"

    def test_run_lengths_of_a_bmp_are_bounded_by_their_bytes(self, refused, monkeypatch):
        head = struct.pack("<2sLHHL", b"BM", 54, 0, 0, 54) + struct.pack(
            "<LllHHLLllLL", 40, 9, 9, 1, 8, 1, 0, 0, 0, 0, 0
        )
        monkeypatch.setattr(image_bounds, "MAX_SLOW", 1_000)
        assert refused(head + b"\1\0" * 600) == "too-complex"

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_tiff_whose_directory_lists_itself(self, refused, order):
        entries = [struct.pack(order + "HHLL", tag, 7, 30_000, 8) for tag in range(1, 4_000)]
        data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "LH", 8, len(entries)) + b"".join(entries)
        assert refused(data + bytes(4)) == "too-complex"

    def test_a_tiff_of_one_huge_tile(self, encoded, picture, refused):
        data = bytearray(encoded(picture(), "TIFF"))
        at = struct.unpack_from("<L", data, 4)[0]
        count = struct.unpack_from("<H", data, at)[0]
        for place in range(count):  # two entries that are not needed become the size of a tile
            tag = struct.unpack_from("<H", data, at + 2 + 12 * place)[0]
            if tag in (282, 283, 296, 305, 278, 273):
                new = {278: 322, 273: 323}.get(tag)
                if new:
                    struct.pack_into("<HHLL", data, at + 2 + 12 * place, new, 4, 1, 60_000)
        assert refused(bytes(data)) == "too-complex"

    def test_boxes_of_a_jp2(self, encoded, picture, refused):
        data = encoded(picture(), "JPEG2000")
        at = data.index(b"jp2h") - 4
        assert refused(data[:at] + struct.pack(">L4s", 8, b"free") * 20_000 + data[at:]) == "too-complex"

    @pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_of_many_frames_one_is_decoded(self, encoded, picture, quarters, format, monkeypatch):
        others = [Image.new("RGB", (48, 32), (n, n, n)) for n in range(200)]
        data = encoded(picture(), format, save_all=True, append_images=others)
        seen = []
        real = ImageFile.ImageFile.load
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: seen.append(self.tell()) or real(self))
        assert quarters(decode_image(data)) == "RGBW"
        assert set(seen) == {0}

    def test_wide_grey_is_brought_to_eight_bits_in_strips(self, encoded):
        grey = np.linspace(0, 65_535, 4_000_000).astype(np.uint16).reshape(2_000, 2_000)
        data = encoded(Image.fromarray(grey), "PNG")
        tracemalloc.start()
        image = images._eight_bit_grey(Image.open(io.BytesIO(data)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * grey.size
        assert np.abs(np.asarray(image).astype(int) - np.round(grey / 257)).max() == 0


def test_the_bound_is_a_quarter_of_a_gibibyte_in_pillow():
    assert MAX_PIXELS * 4 == 1 << 28
