"""Photograph files of every format that is read, written by Pillow, OpenCV or by hand."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from datamodules.preparation import photo_file
from datamodules.preparation.photo_file import FORMATS, SUFFIXES, decode_png, read_photo
from renderers.io.errors import UserError


def gradient() -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    return np.stack([x * 4, y * 5, np.full_like(x, 90)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".jpg", ".tif", ".gif", ".ppm", ".avif"])
def test_formats_are_read_alike(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(gradient()).save(path, **({"lossless": True} if suffix == ".webp" else {}), quality=95)
    read = read_photo(path)
    assert read.dtype == np.uint8 and read.shape == (48, 64, 3)
    assert np.abs(read.astype(int) - gradient()).mean() < {".jpg": 3, ".avif": 3, ".gif": 10}.get(suffix, 0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # What the eight values of the EXIF standard do to the stored pixels.
    undo = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, -1)[:, ::-1][::-1, ::-1],
        8: lambda a: np.rot90(a),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(gradient()).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png"), undo[orientation](gradient()))


def test_gray_deep_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    gray = gradient()[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_photo(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, axis=-1))
    cv2.imwrite(str(tmp_path / "deep.png"), gray.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_photo(tmp_path / "deep.png"), np.repeat(gray[..., None], 3, axis=-1))
    rgba = np.dstack([gradient(), np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(48, 0)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    clear = read_photo(tmp_path / "clear.png")
    np.testing.assert_array_equal(clear[:, :32], gradient()[:, :32])
    assert (clear[:, 32:] == 255).all()
    Image.fromarray(gradient()).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert np.abs(read_photo(tmp_path / "palette.png").astype(int) - gradient()).mean() < 10
    Image.fromarray(gradient()).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert np.abs(read_photo(tmp_path / "print.jpg").astype(int) - gradient()).mean() < 10


def test_color_profiles_are_applied_and_damaged_ones_passed_over(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(gradient()).save(tmp_path / "same.png", icc_profile=srgb)
    assert np.abs(read_photo(tmp_path / "same.png").astype(int) - gradient()).max() <= 1
    Image.fromarray(gradient()).save(tmp_path / "odd.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(read_photo(tmp_path / "odd.png"), gradient())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (None, "no such file|No such file"),
        ("truncated", "truncated|damaged"),
    ],
)
def test_unreadable_photographs_say_why(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    if content == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:3000])
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"photo\.jpg: .*({reason})"):
        read_photo(path)


def test_too_small_photographs_say_so(tmp_path: Path) -> None:
    Image.fromarray(gradient()[:20]).save(tmp_path / "tiny.png")
    with pytest.raises(UserError, match="64 x 20 pixels is too small"):
        read_photo(tmp_path / "tiny.png")


def plain_tiff(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """A TIFF 6.0 file in one strip, from the standard: header, the pixels, lists of numbers, one directory."""
    bits, kind = pixels.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    height, width, channels = pixels.shape
    end = 8 + pixels.nbytes
    lists = struct.pack("<3H", *[bits] * 3) + struct.pack("<3H", *[kind] * 3)
    entries = [
        (256, 3, 1, width), (257, 3, 1, height),
        (258, 3, channels, bits if channels == 1 else end), (259, 3, 1, 1), (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, 8), (274, 3, 1, orientation), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, pixels.nbytes), (339, 3, channels, kind if channels == 1 else end + 6),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    begin = b"II*\0" + struct.pack("<I", end + len(lists))
    return begin + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + lists + directory


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_bits_in_sixteen_are_not_black(tmp_path: Path, bits: int, channels: int) -> None:
    top = 2**bits - 1
    deep = (gradient()[..., :1] / 255.0 * top).round().astype(np.uint16)
    deep[0, 0] = top
    picture = deep if channels == 1 else np.repeat(deep, channels, axis=-1)
    if channels == 4:
        picture[..., 3] = 65535
    cv2.imwrite(str(tmp_path / "deep.png"), picture)
    read = read_photo(tmp_path / "deep.png").astype(int)
    assert np.abs(read - deep / top * 255).max() <= 1


def test_sixteen_bit_colors_keep_their_order(tmp_path: Path) -> None:
    wide = gradient().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), wide[..., ::-1])
    np.testing.assert_array_equal(read_photo(tmp_path / "deep.png"), gradient())
    cv2.imwrite(str(tmp_path / "deep.tif"), wide[..., ::-1])
    np.testing.assert_array_equal(read_photo(tmp_path / "deep.tif"), gradient())


@pytest.mark.parametrize(
    ("dtype", "top"), [("<f4", 1.0), ("<f4", 255.0), ("<f4", 65535.0), ("<i4", 255), ("<i4", 65535), ("<u4", 2**32 - 1)]
)
def test_float_and_long_tiffs_are_not_black(tmp_path: Path, dtype: str, top: float) -> None:
    gray = gradient()[..., 0].astype(np.float64)
    gray[0, 0] = 255
    (tmp_path / "deep.tif").write_bytes(plain_tiff((gray / 255 * top).astype(dtype)[..., None]))
    assert np.abs(read_photo(tmp_path / "deep.tif")[..., 1].astype(int) - gray).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "top"), [("u1", 255), ("<u2", 65535), ("<f4", 1.0), ("<f4", 255.0), ("<u4", 2**32 - 1)]
)
def test_tiffs_of_every_depth_are_turned_once(tmp_path: Path, dtype: str, top: float, channels: int) -> None:
    colors = gradient()[..., :channels].astype(np.float64)
    colors[0, 0] = 255
    (tmp_path / "deep.tif").write_bytes(plain_tiff((colors / 255 * top).astype(dtype), orientation=6))
    assert np.abs(np.rot90(read_photo(tmp_path / "deep.tif")) - colors).max() <= 1


@pytest.mark.parametrize("spoil", ["cut", "half floats", "huge"])
def test_deep_tiffs_that_cannot_be_read_say_so(tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    colors = (gradient() / 255).astype(np.float16 if spoil == "half floats" else np.float32)
    content = plain_tiff(colors)
    (tmp_path / "deep.tif").write_bytes(content[:-40] if spoil == "cut" else content)
    if spoil == "huge":
        monkeypatch.setattr(photo_file, "MOST_PIXELS", 3000)
    told = {"cut": "8 or 16 bits", "half floats": "8 or 16 bits", "huge": "make it smaller"}[spoil]
    with warnings.catch_warnings(), pytest.raises(UserError, match=rf"deep\.tif: .*{told}"):
        warnings.simplefilter("error")
        read_photo(tmp_path / "deep.tif")


def test_values_that_are_not_finite_do_not_darken_the_others(tmp_path: Path) -> None:
    values = gradient()[..., 0].astype(np.float32) / 255
    values[0, :2] = np.nan, np.inf
    (tmp_path / "deep.tif").write_bytes(plain_tiff(values[..., None]))
    assert np.abs(read_photo(tmp_path / "deep.tif")[1:, :, 0].astype(int) - gradient()[1:, :, 0]).max() <= 1


def test_the_first_frame_that_shows_something_is_taken(tmp_path: Path) -> None:
    blank = Image.new("RGB", (64, 48), "white")
    scene = Image.fromarray(np.where(gradient()[..., :1] > 100, 200, 30).astype(np.uint8).repeat(3, axis=-1))
    blank.save(tmp_path / "moving.gif", save_all=True, append_images=[blank.copy(), scene, blank.copy()])
    assert np.abs(read_photo(tmp_path / "moving.gif").astype(int) - np.asarray(scene)).max() <= 8
    blank.save(tmp_path / "blank.gif", save_all=True, append_images=[Image.new("RGB", (64, 48), "gray")])
    assert (read_photo(tmp_path / "blank.gif") == 255).all()


def png_of_nothing(width: int, height: int) -> bytes:
    """A gray PNG file from its specification, black, at most a thousandth of its pixels long."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_large_photographs_are_read_without_a_warning_and_larger_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.png").write_bytes(png_of_nothing(400, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # restored after the test
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for most in (1_000, 119_000):
            monkeypatch.setattr(photo_file, "MOST_PIXELS", most)
            with pytest.raises(UserError, match=r"photo\.png: more than .* megapixels; make it smaller"):
                read_photo(tmp_path / "photo.png")
        monkeypatch.setattr(photo_file, "MOST_PIXELS", 120_000)
        assert read_photo(tmp_path / "photo.png").shape == (300, 400, 3)


def test_what_phones_take_is_read() -> None:
    assert photo_file.MOST_PIXELS > 200e6


def test_postscript_under_another_name_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n0 0 64 48 rectfill\nshowpage\n"
    (tmp_path / "photo.jpg").write_bytes(script)
    with Image.open(tmp_path / "photo.jpg") as known:
        assert known.format == "EPS"  # Pillow would take it
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UserError, match=r"photo\.jpg: not an image of a kind that is read"):
        read_photo(tmp_path / "photo.jpg")


def test_every_ending_is_of_a_format_that_is_read() -> None:
    Image.init()
    formats = {suffix: Image.registered_extensions().get(suffix, "HEIF") for suffix in SUFFIXES}
    assert set(formats.values()) == set(FORMATS)


def test_heic_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {name: value for name, value in Image.OPEN.items() if name != "HEIF"})
    (tmp_path / "photo.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100))
    with pytest.raises(UserError, match=r"photo\.heic: a HEIC photograph: `pip install pillow-heif`"):
        read_photo(tmp_path / "photo.heic")


def test_heic_is_read_where_its_package_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(gradient())).save(tmp_path / "photo.heic", quality=95)
    assert np.abs(read_photo(tmp_path / "photo.heic").astype(int) - gradient()).mean() < 4


def test_only_png_is_decoded_from_prepared_folders() -> None:
    picture = gradient()[..., ::-1]
    held = {suffix: cv2.imencode(suffix, picture)[1].tobytes() for suffix in (".png", ".jpg", ".bmp", ".tiff")}
    np.testing.assert_array_equal(decode_png(held[".png"], cv2.IMREAD_COLOR), picture)
    assert [decode_png(held[suffix], cv2.IMREAD_COLOR) for suffix in (".jpg", ".bmp", ".tiff")] == [None] * 3
    assert decode_png(held[".png"][:60], cv2.IMREAD_COLOR) is None
