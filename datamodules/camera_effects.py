"""Effects of cameras and image files on pictures: exposure, noise, blur, JPEG. Drawn anew for every batch, on its
device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from datamodules.batch import FaceBatch, MultiViewBatch
from renderers.color import decode, encode

REFERENCE = 128  # side of a picture to which lengths in pixels refer
LUMINANCE = (0.2126, 0.7152, 0.0722)
CURVE = 1025  # entries of a tone curve
BLOCK = 16  # pixels; JPEG codes whole blocks


@dataclass(frozen=True)
class CameraRanges:
    """The strength of each effect, drawn uniformly from (least, most), and the share of pictures that have it.

    Attributes:
        exposure: stops.
        white_balance: logarithm of the gains of red and of blue.
        gamma: logarithm of the tone curve's exponent.
        contrast: share of an S-shaped tone curve. Below 0 the curve is inverted, and the picture becomes flatter.
        saturation: 1 leaves colours as they are.
        grayscale: share of pictures without colours.
        resolution: factor by which a picture is scaled down before it is scaled up again.
        low_resolution: share of pictures that are scaled.
        defocus: standard deviation of a Gaussian, pixels of a picture of 128.
        defocused: share of pictures out of focus.
        motion: length of the motion blur, pixels of a picture of 128.
        moved: share of pictures with motion blur.
        shot_noise: variance per unit of light, in display values; it grows with a sensor's ISO.
        read_noise: standard deviation, in display values.
        noisy: share of pictures with both kinds of noise.
        sharpening: strength.
        sharpened: share of sharpened pictures.
        jpeg: quality.
        compressed: share of pictures that are coded as JPEG.
    """

    exposure: tuple[float, float] = (-0.8, 0.7)
    white_balance: tuple[float, float] = (-0.14, 0.14)
    gamma: tuple[float, float] = (-0.3, 0.3)
    contrast: tuple[float, float] = (-0.35, 0.6)
    saturation: tuple[float, float] = (0.5, 1.35)
    grayscale: float = 0.07
    resolution: tuple[float, float] = (0.25, 0.9)
    low_resolution: float = 0.35
    defocus: tuple[float, float] = (0.3, 2.0)
    defocused: float = 0.3
    motion: tuple[float, float] = (3.0, 9.0)
    moved: float = 0.12
    shot_noise: tuple[float, float] = (0.0, 0.006)
    read_noise: tuple[float, float] = (0.0, 0.03)
    noisy: float = 0.6
    sharpening: tuple[float, float] = (0.3, 2.0)
    sharpened: float = 0.25
    jpeg: tuple[float, float] = (20.0, 95.0)
    compressed: float = 0.6


class CameraEffects(nn.Module):
    """Exposure, white balance, tone, blur, noise, scaling and coding, in the order in which a camera applies them.

    Views of one face (`MultiViewBatch.views`) come from one camera. They share all random strengths, but have noise of
    their own.

    Args:
        ranges: of the effects.
    """

    def __init__(self, ranges: CameraRanges = CameraRanges()) -> None:
        super().__init__()
        self.ranges = ranges

    @torch.no_grad()
    def forward(self, batch: FaceBatch) -> FaceBatch:
        """The batch with other pictures: image (B, 3, H, W) in [0, 1] stays in [0, 1]; nothing else changes."""
        camera = torch.arange(len(batch), device=batch.image.device)
        if isinstance(batch, MultiViewBatch) and batch.views is not None and batch.views.numel() > 0:
            camera[batch.views.flatten()] = batch.views[:, :1].expand_as(batch.views).flatten()
        return replace(batch, image=self.taken(batch.image, camera))

    def taken(self, image: Tensor, camera: Tensor) -> Tensor:
        """(B, 3, H, W) pictures as cameras give them. Pictures with the same number in `camera` (B,) share a camera."""
        ranges, scale = self.ranges, image.shape[-1] / REFERENCE
        draw = _Draws(camera)
        image = _colors(image.clamp(0, 1), ranges, draw)
        image = _some(image, draw.chance(ranges.defocused), lambda x, at: _defocus(x, scale * draw(ranges.defocus)[at]))
        moved = scale * draw(ranges.motion), 360 * draw((0.0, 1.0))
        image = _some(image, draw.chance(ranges.moved), lambda x, at: _motion(x, moved[0][at], moved[1][at]))
        noise = draw(ranges.shot_noise), draw(ranges.read_noise)
        image = _some(image, draw.chance(ranges.noisy), lambda x, at: _noise(x, noise[0][at], noise[1][at]))
        resolution = draw(ranges.resolution)
        image = _some(image, draw.chance(ranges.low_resolution), lambda x, at: _scaled(x, resolution[at]))
        strength, quality = draw(ranges.sharpening), draw(ranges.jpeg)
        image = _some(image, draw.chance(ranges.sharpened), lambda x, at: _sharpened(x, strength[at]))
        image = _some(image, draw.chance(ranges.compressed), lambda x, at: _compressed(x, quality[at]))
        return image.clamp(0, 1)


class _Draws:
    """Uniform random numbers. All pictures of one camera get the same ones."""

    def __init__(self, camera: Tensor) -> None:
        self.camera = camera

    def __call__(self, limits: tuple[float, float]) -> Tensor:
        """(B,) uniform in the limits."""
        low, high = limits
        return low + (high - low) * torch.rand(len(self.camera), device=self.camera.device)[self.camera]

    def chance(self, share: float) -> Tensor:
        """(B,) bool, true for this share of the cameras."""
        return self((0.0, 1.0)) < share


def _some(image: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The pictures, with `change` applied to the chosen (B,) bool ones."""
    rows = chosen.nonzero()[:, 0]
    return image.index_copy(0, rows, change(image[rows], rows).clamp(0, 1)) if len(rows) else image


def _colors(image: Tensor, ranges: CameraRanges, draw: _Draws) -> Tensor:
    """Exposure and white balance act on linear light, gamma, contrast and saturation on display values."""
    red, blue = draw(ranges.white_balance).exp(), draw(ranges.white_balance).exp()
    gain = torch.stack([red, torch.ones_like(red), blue], dim=1) * torch.exp2(draw(ranges.exposure))[:, None]
    level = torch.linspace(0, 1, CURVE, device=image.device).expand(1, 1, -1)
    curve = encode(decode(level) * gain[..., None]).clamp(0, 1) ** draw(ranges.gamma).exp()[:, None, None]
    curve = torch.lerp(curve, curve * curve * (3 - 2 * curve), draw(ranges.contrast)[:, None, None])
    image = _looked_up(image, curve)
    gray = (image * image.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    colorful = torch.where(draw.chance(ranges.grayscale), 0.0, draw(ranges.saturation))
    return torch.lerp(gray, image, colorful[:, None, None, None]).clamp(0, 1)


def _looked_up(image: Tensor, curve: Tensor) -> Tensor:
    """Apply tone curves (B, 3, N), linear between entries, to (B, 3, H, W) in [0, 1].

    Computing the powers for every pixel takes a CPU five times as long.
    """
    place = image.flatten(2) * (curve.shape[-1] - 1)
    below = place.long().clamp_max(curve.shape[-1] - 2)
    start, step = curve.gather(2, below), curve.diff(dim=2).gather(2, below)
    return torch.addcmul(start, place - below, step).view_as(image)


def _defocus(image: Tensor, deviation: Tensor) -> Tensor:
    from kornia.filters import gaussian_blur2d

    width = 2 * math.ceil(2 * float(deviation.max())) + 1
    width = min(width, 2 * ((image.shape[-1] - 1) // 2) - 1)
    return gaussian_blur2d(image, (width, width), deviation[:, None].expand(-1, 2))


def _motion(image: Tensor, length: Tensor, angle: Tensor) -> Tensor:
    from kornia.filters import motion_blur

    size = max(3, 2 * (round(float(length.mean())) // 2) + 1)
    return motion_blur(image, size, angle, torch.zeros_like(angle))


def _noise(image: Tensor, shot: Tensor, read: Tensor) -> Tensor:
    variance = shot[:, None, None, None] * image + read.square()[:, None, None, None]
    return image + variance.sqrt() * torch.randn_like(image)


def _scaled(image: Tensor, share: Tensor) -> Tensor:
    """Scale down and up again, picture by picture, because each has its own size."""
    size = image.shape[-2:]
    small = [[max(4, round(float(part) * side)) for side in size] for part in share]
    resize = nn.functional.interpolate
    found = [
        resize(resize(one[None], to, mode="bilinear", antialias=True), size, mode="bicubic")
        for one, to in zip(image, small, strict=True)
    ]
    return torch.cat(found)


def _sharpened(image: Tensor, strength: Tensor) -> Tensor:
    from kornia.filters import unsharp_mask

    return image + strength[:, None, None, None] * (unsharp_mask(image, (5, 5), (1.0, 1.0)) - image)


def _compressed(image: Tensor, quality: Tensor) -> Tensor:
    if not image.is_cuda:
        return _coded_by_libjpeg(image, quality)
    from kornia.enhance import jpeg_codec_differentiable

    height, width = image.shape[-2:]
    padded = nn.functional.pad(image, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    return jpeg_codec_differentiable(padded, quality)[..., :height, :width]


def _coded_by_libjpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG coding on the CPU, ten times as fast as by tensor operations."""
    from torchvision.io import decode_jpeg, encode_jpeg

    levels = (image * 255).round().byte()
    coded = [decode_jpeg(encode_jpeg(one, round(float(part)))) for one, part in zip(levels, quality, strict=True)]
    return torch.stack(coded).to(image) / 255
