"""The fine stage's networks: from what a photograph shows beyond its coarse face to albedo and displacement maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_modules.components.unet import Decoder, Encoder, quiet_head
from lightning_modules.components.wavelet import HaarTransform, InverseHaarTransform
from renderers.face_renderer import Rendering
from renderers.illumination import irradiance
from renderers.uv import UVChart, unit

DETAIL_SCALE = 10.0  # brings increments and wavelet coefficients, a few hundredths, near 1
SLOPE_STEP = 0.05  # decimetres per unit of u or v
STEEPEST = 1.0  # decimetres per unit of u or v: a slope of about 30 degrees
WIDEST = 8.0  # radians per unit of u or v: waves as wide as the face are halved
LEAST_ANSWER = 0.03  # change of brightness per unit of slope, below which light does not tell slopes
PICTURE_CHANNELS = 3
BAND_CHANNELS = 3 * PICTURE_CHANNELS  # LH, HL, HH of a picture


@dataclass(frozen=True)
class UnwrappedFace:
    """A photograph beside its coarse face in UV space; texels that are not seen are completed by mirrored ones.

    Attributes:
        increment: (B, 3, R, R) photograph minus coarse render; where only the mirrored texel is seen, that one's; 0
            where neither is, and outside the chart.
        photograph: (B, 3, R, R) the coarse colours plus the increment: the whole face, with the details that are known.
        relief: (B, 1, R, R) decimetres: what the increment would be if it were nothing but shading, see
            `relief_from_shading`.
    """

    increment: Tensor
    photograph: Tensor
    relief: Tensor


@torch.no_grad()
def unwrap_face(chart: UVChart, image: Tensor, illumination: Tensor, rendering: Rendering) -> UnwrappedFace:
    """Unwraps a photograph and its coarse render and takes their difference (finegrained, section 3.4.3).

    Args:
        chart: of the face model.
        image: (B, 3, H, W) in [0, 1].
        illumination: (B, 27) of the coarse faces.
        rendering: the coarse faces, drawn at H x W.
    """
    # Unwrapping is linear: of the difference it gives the difference of both unwrapped. A photograph ends at white.
    difference, visibility = chart.unwrap(image - rendering.image.clamp(0, 1), rendering)
    difference = difference * visibility
    increment = difference + (1 - visibility) * chart.mirror(difference)
    photograph = chart.bake(rendering.vertex_colors) + increment
    return UnwrappedFace(increment, photograph, relief_from_shading(chart, difference, illumination, rendering))


def relief_from_shading(chart: UVChart, difference: Tensor, illumination: Tensor, rendering: Rendering) -> Tensor:
    """The relief under which the coarse face's shading would change as the photograph asks.

    The increment alone, which is all that the paper's displacement module is given, does not tell a ridge from a
    groove: that takes the light. To first order slopes (d_u, d_v) change the brightness by r_u d_u + r_v d_v, where r
    is the shading's answer to them; their least solution for a difference e is r e / (|r|^2 + epsilon^2), and the
    relief is the one whose slopes come nearest.

    Args:
        chart: of the face model.
        difference: (B, 3, R, R) photograph minus coarse render, 0 where it is not seen.
        illumination: (B, 27) of the coarse faces.
        rendering: the coarse faces.

    Returns:
        (B, 1, R, R) decimetres along the normals; 0 outside the chart.
    """
    normals = unit(chart.bake(rendering.vertex_normals))
    albedo, places = chart.bake(rendering.vertex_albedo), chart.bake(chart.uv).expand(len(normals), -1, -1, -1)
    tilts = [SLOPE_STEP * chart.surface_gradient(rendering, place) for place in places.split(1, dim=1)]
    bent = torch.cat([normals, *(unit(normals - tilt) for tilt in tilts)])
    light = irradiance(bent.flatten(2).transpose(1, 2), illumination.repeat(3, 1)).transpose(1, 2)
    colors = albedo * light.unflatten(2, bent.shape[2:]).unflatten(0, (3, -1))
    flat, along_u, along_v = colors.mean(dim=2, keepdim=True)
    answer = torch.cat([along_u - flat, along_v - flat], dim=1) / SLOPE_STEP
    strength = answer.square().sum(dim=1, keepdim=True) + LEAST_ANSWER**2
    slopes = (answer * difference.mean(dim=1, keepdim=True) / strength).clamp(-STEEPEST, STEEPEST)
    return integrate(slopes) * chart.mask


def integrate(slopes: Tensor) -> Tensor:
    """The periodic surface whose slopes come nearest to given ones (Frankot and Chellappa 1988), without wide waves.

    Args:
        slopes: (B, 2, R, R) along u (columns) and v (against the rows), per unit of u and v.

    Returns:
        (B, 1, R, R) of mean 0; a wave is damped by 1 / (1 + (WIDEST / omega)^2).
    """
    omega_u, omega_v = _frequencies(slopes)
    along_u, along_v = torch.fft.rfft2(slopes).unbind(1)
    surface = -1j * (omega_u * along_u + omega_v * along_v) / (omega_u.square() + omega_v.square() + WIDEST**2)
    return torch.fft.irfft2(surface, s=slopes.shape[-2:])[:, None]


def without_wide_waves(maps: Tensor) -> Tensor:
    """(B, C, R, R) the maps with every wave damped as `integrate` damps it: what is wider is the coarse face's."""
    squared = sum(omega.square() for omega in _frequencies(maps))
    return torch.fft.irfft2(torch.fft.rfft2(maps) * (squared / (squared + WIDEST**2)), s=maps.shape[-2:])


def _frequencies(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Radians per unit of u, of the columns of `rfft2`, and of v, of its rows (which run against v)."""
    height, width = maps.shape[-2:]
    omega_u = torch.fft.rfftfreq(width, 1 / width, device=maps.device)
    omega_v = torch.fft.fftfreq(height, 1 / height, device=maps.device)
    return 2 * math.pi * omega_u, -2 * math.pi * omega_v[:, None]


class WaveletEncoder(nn.Module):
    """Wavelet transform perception encoder (section 3.4.1): features of the details that a photograph holds.

    The paper decomposes the photograph and hands the features to decoders that work in UV space. Here it is unwrapped
    first, so that a feature stands at the texel that it tells of. LL is dropped: of each level LH, HL and HH enter, and
    put together again without it they are the finest features, the details as a picture.

    Args:
        widths: channels of the features at each level; there are as many levels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = (PICTURE_CHANNELS, *widths)
        self.transform, self.inverse = HaarTransform(len(widths)), InverseHaarTransform()
        self.encoder = Encoder([BAND_CHANNELS] * len(widths), widths)

    def forward(self, photograph: Tensor) -> list[Tensor]:
        """(B, 3, R, R) in UV space -> features of R, R / 2, R / 4 ... texels, (B, 3, R, R) and (B, width, h, w)."""
        low, details = self.transform(DETAIL_SCALE * photograph)
        height, width = photograph.shape[-2:]
        picture = self.inverse(torch.zeros_like(low), details, (height, width))
        return [picture, *self.encoder([level.flatten(1, 2) for level in details])]

    def silence(self, photograph: Tensor) -> list[Tensor]:
        """What `forward` would return, but zeros: nothing is perceived."""
        features, (height, width) = [], photograph.shape[-2:]
        for channels in self.widths:
            features.append(photograph.new_zeros(len(photograph), channels, height, width))
            height, width = (height + 1) // 2, (width + 1) // 2
        return features


class AlbedoModule(nn.Module):
    """Smooth albedo map and wavelet features -> the detail of the albedo (section 3.4.2, figure 3).

    Untrained it adds nothing.

    Args:
        widths: channels at each scale, the finest first; the photograph is decomposed once less than there are scales.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder([PICTURE_CHANNELS, *[0] * (len(widths) - 1)], widths)
        self.perception = WaveletEncoder(widths[1:])
        joined = [own + perceived for own, perceived in zip(widths, self.perception.widths, strict=True)]
        self.decoder = Decoder(joined, widths)
        self.head = quiet_head(widths[0] + PICTURE_CHANNELS, PICTURE_CHANNELS)
        # Spares a CPU a quarter of the time.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, smooth: Tensor, photograph: Tensor, perceive: bool = True) -> Tensor:
        """What is to be added to smooth albedo maps.

        Args:
            smooth: (B, 3, R, R) the coarse face's albedo, RGB.
            photograph: (B, 3, R, R) in UV space.
            perceive: False leaves the wavelet features out.

        Returns:
            (B, 3, R, R) RGB, of either sign.
        """
        perceived = self.perception(photograph) if perceive else self.perception.silence(photograph)
        joined = [torch.cat(level, dim=1) for level in zip(self.encoder([smooth]), perceived, strict=True)]
        return self.head(torch.cat([self.decoder(joined), perceived[0]], dim=1))


class DisplacementModule(nn.Module):
    """Increment image and wavelet features -> displacement map, by two parallel branches (section 3.4.3, figure 4).

    Untrained it displaces nothing.

    Args:
        widths: channels at each scale, the finest first; the photograph is decomposed once less than there are scales.
        most: the largest displacement, decimetres.
    """

    def __init__(self, widths: Sequence[int], most: float) -> None:
        super().__init__()
        self.most = most
        self.encoder = Encoder([PICTURE_CHANNELS + 1, *[0] * (len(widths) - 1)], widths)
        self.decoder = Decoder(widths, widths)
        self.perception = WaveletEncoder(widths[1:])
        self.perception_decoder = Decoder(self.perception.widths, widths)
        self.head = quiet_head(2 * widths[0] + 1, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, face: UnwrappedFace, photograph: Tensor, perceive: bool = True) -> Tensor:
        """Displacement maps of faces.

        Args:
            face: B of them; their increments are looked at, and the relief that these suggest.
            photograph: (B, 3, R, R) in UV space.
            perceive: False leaves the wavelet branch out.

        Returns:
            (B, 1, R, R) decimetres along the normals, at most `most` either way.
        """
        relief = DETAIL_SCALE / self.most * face.relief
        found = self.decoder(self.encoder([torch.cat([DETAIL_SCALE * face.increment, relief], dim=1)]))
        perceived = self.perception_decoder(self.perception(photograph)) if perceive else torch.zeros_like(found)
        return self.most * without_wide_waves(self.head(torch.cat([found, perceived, relief], dim=1))).tanh()
