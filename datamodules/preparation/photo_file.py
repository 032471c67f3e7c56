"""Reads photograph files of many formats as upright 8-bit sRGB pictures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from renderers.io.errors import UserError

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of all formats that are read. No others are, because some of their readers start other programs."""
SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg",
    ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Endings by which a photograph is known in a folder. `read_photo` itself looks at the content."""
MIN_SIDE = 32  # pixels; no detector finds a face in a smaller picture
MOST_PIXELS = 256_000_000  # 0.8 GB; phones take up to 200 megapixels
MOST_FRAMES = 100  # of an animation, that are searched for one that is not of a single colour
DEPTHS = (8, 10, 12, 14, 16)  # bits per channel that cameras and scanners write
TIFF_STARTS = (b"II*\0", b"MM\0*")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def read_photo(path: Path) -> np.ndarray:
    """A photograph as it is meant to be seen: EXIF orientation and colour profile applied, transparency over white.

    Gray, palette, CMYK, 16-bit and transparent files become RGB. Of an animation the first frame that is not of a
    single colour is taken. Values of more than 8 bits are divided by the largest number of as many bits as are used,
    one of `DEPTHS`; values that need more bits are divided by the brightest.

    Args:
        path: a file of one of `FORMATS`, whatever its name; HEIF needs the package pillow-heif.

    Returns:
        (H, W, 3) uint8 sRGB.

    Raises:
        UserError: no such file, or not an image, truncated, too small or too large; the message begins with the path.
    """
    with open_picture(path) as opened:
        if min(opened.size) < MIN_SIDE:
            raise UserError(
                f"{path}: {opened.width} x {opened.height} pixels is too small to show a face: give a larger picture"
            )
        if getattr(opened, "n_frames", 1) > 1:
            _seek_content(opened)
        return np.array(_to_srgb(ImageOps.exif_transpose(_eight_bit(opened, path))))


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Pillow's image of a file in one of `FORMATS`. Errors while it is open become a `UserError`.

    Raises:
        UserError: no such file, not an image, truncated, or larger than `MOST_PIXELS`; the message begins with the
            path.
    """
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty: copy it again")
        # From a file name, Pillow would map raw pixels into memory and swap the sides of a TIFF that is stored rotated.
        with path.open("rb") as file, _opened(file, path) as image:
            yield image
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {MOST_PIXELS // 10**6} megapixels; make it smaller") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: {_unknown(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or f'damaged or truncated image ({error})'}") from None
    except (SyntaxError, ValueError, EOFError, MemoryError, cv2.error) as error:
        # Decoders raise any of these for a damaged file.
        raise UserError(f"{path}: damaged image ({' '.join(str(error).split()) or type(error).__name__})") from None


def _opened(file: BinaryIO, path: Path) -> Image.Image:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    with warnings.catch_warnings():
        # Pillow warns of large pictures, which phones take, and of damage. Twice its limit it refuses.
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
        try:
            return Image.open(file, formats=[name for name in FORMATS if name != "HEIF" or name in Image.OPEN])
        except UnidentifiedImageError:
            picture = _deep_tiff(file, path)
            if picture is None:
                raise
            return picture


def _deep_tiff(file: BinaryIO, path: Path) -> Image.Image | None:
    """A TIFF with colours of 32 or 64 bits a channel, which Pillow cannot read, in 8 bits. None for other files."""
    file.seek(0)
    start = file.read(8)
    if start[:4] not in TIFF_STARTS:
        return None
    tags = TiffImagePlugin.ImageFileDirectory_v2(start)
    file.seek(tags.next)
    tags.load(file)
    tag = ExifTags.Base
    width, height, bits = (tags.get(name) for name in (tag.ImageWidth, tag.ImageLength, tag.BitsPerSample))
    if not isinstance(bits, tuple) or len(bits) < 3 or not set(bits) <= {32, 64}:
        return None
    if not isinstance(width, int) or not isinstance(height, int):
        return None
    if width * height > MOST_PIXELS:
        raise Image.DecompressionBombError
    values = _decoded(path)
    if values is None:
        return None
    picture = Image.fromarray(_scaled(values[..., :3]))
    picture.info["icc_profile"] = tags.get(tag.InterColorProfile)
    return picture


def _decoded(path: Path) -> np.ndarray | None:
    """OpenCV's (H, W, 3) or (H, W, 4) values of a colour picture, in the file's own type; None if it cannot read it.

    OpenCV turns TIFF files upright, but no others.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # The caller reports the damage.
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded[..., [2, 1, 0, 3][: decoded.shape[2]]] if decoded is not None and decoded.ndim == 3 else None


def _unknown(path: Path) -> str:
    """Why Pillow cannot read a file, and the remedy."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS:
        return "a HEIC photograph: `pip install pillow-heif` to read it, or save it as JPEG"
    if start[:4] in TIFF_STARTS:
        return "a kind of TIFF that is not read; save it with 8 or 16 bits a channel, or as PNG"
    return "not an image of a kind that is read (JPEG, PNG, WebP, TIFF, AVIF, HEIC, GIF, BMP, PPM)"


def _seek_content(image: Image.Image) -> None:
    """Seek the first frame that is not of a single colour, or else the first frame."""
    for frame in range(min(image.n_frames, MOST_FRAMES)):  # type: ignore[attr-defined]
        image.seek(frame)
        if np.ptp(np.asarray(image.convert("RGB")), axis=(0, 1)).any():
            return
    image.seek(0)


def _eight_bit(image: Image.Image, path: Path) -> Image.Image:
    """The image with 8 bits a channel, whatever the file has."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "I" and values.min() < 0:
            values = values.view(np.uint32)  # Pillow has no unsigned mode of 32 bits
    elif any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        # Pillow drops the low byte of 16-bit colours, and with it pictures of 10 or 12 bits.
        decoded = _decoded(path)
        if decoded is None or decoded.dtype != np.uint16:
            return image
        values = decoded
        if values.shape[2] == 4:
            color = _scaled(values[..., :3])
            values = np.dstack([color, (values[..., 3] / 257).round().astype(np.uint8)])
    else:
        return image
    found = Image.fromarray(values if values.dtype == np.uint8 else _scaled(values))
    found.info["icc_profile"] = image.info.get("icc_profile")
    if image.format != "TIFF":  # Pillow and OpenCV have already applied the orientation
        found.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values of any type and depth -> uint8. Floats up to about 1 are times 255; see `read_photo` for others."""
    finite = np.nan_to_num(values.astype(np.float64), posinf=0.0)
    brightest = float(finite.max())
    if values.dtype.kind == "f" and brightest <= 2:
        top = 1.0
    else:
        top = next((2.0**bits - 1 for bits in DEPTHS if brightest < 2**bits), brightest)
    return np.asarray((np.clip(finite / top, 0, 1) * 255).round(), np.uint8)


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = image.mode if image.mode == "RGBA" else "RGB"
            image = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode) or image
        except (ImageCms.PyCMSError, OSError, TypeError):
            pass  # With a damaged or mismatched profile the numbers are taken as sRGB.
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def decode_png(content: bytes, mode: int) -> np.ndarray | None:
    """OpenCV's pixels of a PNG file's content, in the order BGR; None if it is damaged or not a PNG.

    Args:
        content: of the file.
        mode: `cv2.IMREAD_COLOR` or `cv2.IMREAD_GRAYSCALE`.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None  # OpenCV would try every format that it knows
    return cv2.imdecode(np.frombuffer(content, np.uint8), mode)
