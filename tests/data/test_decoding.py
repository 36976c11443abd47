"""The one decoder: every format and mode that is read gives Pillow's pixels, the others are refused by name."""

import io

import numpy as np
import pytest
from helpers.image_files import a_file, encoded, of_mode, pillow, pixels, png_that_claims
from PIL import Image, ImageOps

from jaxformer.data.decoding import FORMATS, decode_image, decode_mask

LISTED = [(format, mode) for format, modes in FORMATS.items() for mode in modes.split()]


@pytest.mark.parametrize(("format", "mode"), LISTED)
def test_a_listed_format_and_mode_gives_pillows_pixels(format, mode):
    content = a_file(format, mode)
    for channels in (1, 3):
        for upright in (False, True):
            found = decode_image(content, channels, upright)
            assert found.dtype == np.uint8
            assert found.flags.writeable
            np.testing.assert_array_equal(found, pillow(content, channels))


RGB, PALETTE = of_mode("RGB"), of_mode("P")
NOT_PLAIN = {
    "JPEG, colours at half the width": encoded(RGB, "JPEG", subsampling=1),
    "JPEG, colours at full size": encoded(RGB, "JPEG", subsampling=0, quality=30),
    "JPEG, progressive": encoded(RGB, "JPEG", progressive=True),
    "JPEG that holds RGB": encoded(RGB, "JPEG", keep_rgb=True),
    "JPEG with bytes behind its end": encoded(RGB, "JPEG") + bytes(9),
    "PNG, one colour is transparent": encoded(RGB, "PNG", transparency=RGB.getpixel((0, 0))),
    "PNG, one grey is transparent": encoded(of_mode("L"), "PNG", transparency=7),
    "PNG, a palette with one transparency": encoded(PALETTE, "PNG", transparency=3),
    "PNG, a palette of transparencies": encoded(PALETTE, "PNG", transparency=bytes(range(200))),
    "PNG, 4 colours": encoded(RGB.quantize(4), "PNG", bits=2),
    "PNG, animated": encoded(
        RGB, "PNG", save_all=True, default_image=True, append_images=[RGB.rotate(180)] * 2
    ),
    "PNG with bytes behind its end": encoded(RGB, "PNG") + bytes(9),
    "GIF, animated": encoded(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
    "GIF, one colour is transparent": encoded(PALETTE, "GIF", transparency=3),
    "WebP, animated": encoded(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)]),
    "TIFF, LZW": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "TIFF of a JPEG": encoded(RGB, "TIFF", compression="jpeg"),
    "TIFF, CCITT": encoded(of_mode("1"), "TIFF", compression="group4"),
    "PGM of values to 100": b"P5 3 2 100\n" + bytes([0, 20, 40, 60, 80, 100]),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # Pillow's, in `pillow`
@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_files_of_these_formats_give_pillows_pixels(name):
    for channels in (1, 3):
        expected = pillow(NOT_PLAIN[name], channels)
        np.testing.assert_array_equal(decode_image(NOT_PLAIN[name], channels), expected)
        np.testing.assert_array_equal(decode_image(NOT_PLAIN[name], channels, upright=True), expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_of_png_files_of_16_bits_the_upper_8_are_taken(channels):
    import cv2

    values = pixels(channels, np.uint16, 65536)
    content = cv2.imencode(".png", values)[1].tobytes()
    upper = (values >> 8).astype(np.uint8)[:, :, 2::-1]  # OpenCV writes blue, green, red
    np.testing.assert_array_equal(decode_image(content, 3), upper)
    np.testing.assert_array_equal(pillow(content, 3), upper)


def test_of_several_pages_the_first_is_taken(tmp_path):
    RGB.save(tmp_path / "pages.tif", save_all=True, append_images=[of_mode("L")])
    np.testing.assert_array_equal(decode_image((tmp_path / "pages.tif").read_bytes(), 3), np.asarray(RGB))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
@pytest.mark.parametrize("tag", [*range(10), 65535])
def test_images_are_turned_as_pillow_turns_them(format, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    content = a_file(format, "RGB", exif=exif)
    expected = pillow(content, 3)
    assert expected.shape == ((60, 40, 3) if 5 <= tag <= 8 else (40, 60, 3))
    np.testing.assert_array_equal(decode_image(content, 3, upright=True), expected)
    if format not in ("TIFF", "AVIF"):  # Pillow turns a TIFF, and libavif an AVIF, before anybody asks
        np.testing.assert_array_equal(decode_image(content, 3), pillow(content, 3, upright=False))
    ids = of_mode("L")
    if format in ("PNG", "TIFF"):
        with Image.open(io.BytesIO(encoded(ids, format, exif=exif))) as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(decode_mask(encoded(ids, format, exif=exif), upright=True), upright)


def claiming(format: str, size: dict[int, bytes]) -> bytes:
    """A file of 40x60 pixels with other bytes where its header states the size."""
    content = bytearray(encoded(RGB, format, **({"exif": bytes(9)} if format == "WEBP" else {})))
    for place, stated in size.items():
        content[place : place + len(stated)] = stated
    return bytes(content)


REFUSED = {
    "floats": (encoded(of_mode("F"), "TIFF"), "a TIFF of the mode F; save it as grey or RGB of 8 bits"),
    "floats of Netpbm": (encoded(of_mode("F"), "PPM"), "a PPM of the mode F; save it as"),
    "another format": (
        encoded(RGB, "TGA"),
        r"7244 bytes that are not an image; AVIF, BMP, .*, WEBP are read",
    ),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "bytes that are not an image"),
    "a text": (b"hello", "5 bytes that are not an image"),
    "nothing": (b"", "empty file"),
    "a giant PNG": (png_that_claims(60000, 60000), r"Image size \(3600000000 pixels\) .*; make it smaller"),
    "a large PNG": (png_that_claims(30000, 30000), r"Image size \(900000000 pixels\) .*; make it smaller"),
    "a giant PPM": (b"P6\n999999 999999\n255\n" + bytes(99), r"Image size \(999998000001 pixels\)"),
    "a giant GIF": (claiming("GIF", {6: b"\xff" * 4}), r"Image size \(4294836225 pixels\)"),
    "a giant BMP": (claiming("BMP", {18: b"\x60\xea\0\0" * 2}), r"Image size \(3600000000 pixels\)"),
    "a giant TIFF": (
        claiming("TIFF", {18: b"\x60\xea", 30: b"\x60\xea"}),
        r"Image size \(3600000000 pixels\)",
    ),
    "a giant WebP": (claiming("WEBP", {24: b"\xff\x3f\0" * 2}), r"Image size \(268435456 pixels\)"),
    "half a PNG": (encoded(RGB, "PNG")[:3000], "truncated"),
    "half a grey PNG": (encoded(of_mode("L"), "PNG")[:1000], "truncated"),
    "half a JPEG": (encoded(RGB, "JPEG")[:2000], "truncated"),
    "half a WebP": (encoded(RGB, "WEBP")[:1000], "."),
    "half a TIFF": (encoded(RGB, "TIFF")[:3000], "."),
    "the header of a PNG": (png_that_claims(3, 3)[:20], "."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_decoded_says_why(name):
    content, message = REFUSED[name]
    for channels in (1, 3):
        for upright in (False, True):
            with pytest.raises(ValueError, match=message):
                decode_image(content, channels, upright)
    with pytest.raises(ValueError, match="." if "half" in name or "mode" in message else message):
        decode_mask(content)


def test_integers_of_32_bits_are_ids_and_no_image():
    content = encoded(of_mode("I"), "TIFF")
    with pytest.raises(ValueError, match="a TIFF of the mode I; save it as grey or RGB of 8 bits"):
        decode_image(content, 3)
    np.testing.assert_array_equal(decode_mask(content), pixels(1, np.int32, 65536))


def test_a_png_that_is_damaged_anywhere_is_pillows_image_or_refused():
    whole, rng = encoded(RGB, "PNG"), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 200):
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        try:
            found = decode_image(bytes(content), 3)
        except ValueError:
            with pytest.raises((OSError, SyntaxError, ValueError)):
                pillow(bytes(content), 3, upright=False)
        else:
            np.testing.assert_array_equal(found, pillow(bytes(content), 3, upright=False))
