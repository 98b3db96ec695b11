"""Images of every kind are decoded upright, in RGB, and independently of other images."""

import hashlib
import io
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageFile

from indexer.corpus.images import DARK, decode_image, encode_for_storage, image_digest
from indexer.errors import ItemError

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
        if (mode, format) == ("YCbCr", "TIFF") and Image.open(io.BytesIO(data)).mode != mode:
            pytest.skip("Pillow before 13 cannot read the YCbCr TIFF files that it writes")
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

    def test_palette_gif_and_16_bit_grey_in_white_are_laid_on_dark(self, encoded):
        palette = Image.new("P", (8, 8))
        palette.putpalette([0, 0, 0, 255, 255, 255])
        palette.putpixel((3, 3), 1)
        grey = np.zeros((8, 8), np.uint16)
        grey[3, 3] = 65_535
        for data in (
            encoded(palette, "GIF", transparency=0),
            encoded(palette, "PNG", transparency=bytes([0, 255])),
            encoded(Image.fromarray(grey), "PNG", transparency=0),
        ):
            image = decode_image(data)
            assert [image.getpixel(at) for at in ((3, 3), (0, 0))] == [(255, 255, 255), DARK]

    @pytest.mark.parametrize("orientation", UNDONE_BY)
    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
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


def drawn(colour, alpha=255, size=64, shape="ellipse", behind=(0, 0, 0)):
    image = Image.new("RGBA", (size, size), (*behind, 0))
    getattr(ImageDraw.Draw(image), shape)([8, 8, size - 8, size - 8], fill=(*colour, alpha))
    return image


class TestGround:
    """A drawing is laid on white, unless white hides it."""

    @pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("colour", [(255, 255, 255), (250, 250, 250), (236, 238, 240)])
    def test_white_drawings_differ(self, encoded, format, colour):
        options = {"lossless": True} if format == "WEBP" else {}
        shapes = [encoded(drawn(colour, shape=shape), format, **options) for shape in ("ellipse", "rectangle")]
        one, two = map(decode_image, shapes)
        assert one.tobytes() != two.tobytes()
        assert np.abs(np.asarray(one.getpixel((0, 0))) - DARK).max() < 4
        assert np.abs(np.asarray(one.getpixel((32, 32))) - colour).max() < 4

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "La"])
    def test_white_in_every_mode_with_alpha(self, mode):
        if mode == "La":
            pytest.raises(ItemError, decode_image, Image.new("La", (4, 4)))
            return
        assert decode_image(drawn((255, 255, 255)).convert(mode)).getpixel((0, 0)) == DARK

    @pytest.mark.parametrize(
        "colour", [(0, 0, 0), (200, 0, 0), (255, 255, 0), (255, 255, 200), (128, 128, 128), (222, 222, 222)]
    )
    def test_every_other_drawing_keeps_white(self, colour):
        for alpha in (255, 100, 20):
            assert decode_image(drawn(colour, alpha)).getpixel((0, 0)) == (255, 255, 255)

    def test_what_is_hidden_under_full_transparency_does_not_count(self):
        for behind in (0, 0, 0), (255, 255, 255), (90, 10, 200):
            assert decode_image(drawn((255, 255, 255), behind=behind)).getpixel((0, 0)) == DARK
            assert decode_image(drawn((20, 20, 20), behind=behind)).getpixel((0, 0)) == (255, 255, 255)

    def test_a_faint_white_drawing_is_seen(self):
        image = decode_image(drawn((255, 255, 255), alpha=40))
        assert image.getpixel((32, 32)) != image.getpixel((0, 0)) == DARK

    def test_a_white_drawing_with_a_dark_line_keeps_white(self):
        image = drawn((255, 255, 255))
        ImageDraw.Draw(image).line([8, 8, 56, 56], fill=(0, 0, 0, 255), width=3)
        assert decode_image(image).getpixel((0, 0)) == (255, 255, 255)

    def test_a_speck_does_not_hold_the_ground(self):
        image = drawn((255, 255, 255))
        image.putpixel((32, 32), (200, 0, 0, 255))
        assert decode_image(image).getpixel((0, 0)) == DARK

    def test_an_image_with_nothing_visible_is_white(self):
        assert decode_image(Image.new("RGBA", (8, 8), (9, 9, 9, 0))).getcolors() == [(64, (255, 255, 255))]

    def test_an_opaque_white_image_stays_as_it_is(self):
        assert decode_image(Image.new("RGBA", (8, 8), (255, 255, 255, 255))).getcolors() == [(64, (255, 255, 255))]


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
