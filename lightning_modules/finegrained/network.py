"""The fine stage's networks: difference of photograph and coarse render -> albedo and displacement maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from lightning_modules.finegrained.shading import relief_from_shading, without_wide_waves
from lightning_modules.finegrained.unet import Decoder, Encoder, quiet_head
from lightning_modules.finegrained.wavelet import HaarTransform, InverseHaarTransform
from losses.photometric import saturate_skin
from renderers.face_renderer import Rendering
from renderers.illumination import irradiance
from renderers.uv.chart import UVChart, unit

DETAIL_SCALE = 10.0  # increments and wavelet coefficients are a few hundredths; this factor brings them near 1
PICTURE_CHANNELS = 3
SKIN_EDGE = 0.01  # width of the border that `bare_skin` removes, over the picture's width
BAND_CHANNELS = 3 * PICTURE_CHANNELS  # LH, HL, HH of a picture


@dataclass(frozen=True)
class UnwrappedFace:
    """A photograph's skin and its coarse face in UV space.

    Attributes:
        increment: (B, 3, R, R) photograph minus coarse render; 0 outside the chart. A texel without visible skin takes
            the increment of the mirrored texel, or else that of the texels around it.
        photograph: (B, 3, R, R) coarse colours plus increment: the whole face, with all details that are known.
        relief: (B, 1, R, R) decimetres, the relief that explains the increment by shading alone, see
            `relief_from_shading`.
    """

    increment: Tensor
    photograph: Tensor
    relief: Tensor


@torch.no_grad()
def unwrap_face(
    chart: UVChart, image: Tensor, skin: Tensor, illumination: Tensor, rendering: Rendering
) -> UnwrappedFace:
    """Unwrap photographs and their coarse renders, and take the difference (finegrained, section 3.4.3).

    A texel weighs as much as its visibility times its skin weight, so that hair and occluders stay off the face.

    Args:
        chart: of the face model.
        image: (B, 3, H, W) in [0, 1].
        skin: (B, 1, H, W) weights in [0, 1].
        illumination: (B, 27) of the photographs, see `refitted_light`.
        rendering: the coarse faces, drawn at H x W.
    """
    shading = irradiance(unit(rendering.normals).flatten(2).transpose(1, 2), illumination).transpose(1, 2)
    relit = rendering.albedo * shading.unflatten(2, image.shape[2:])
    # Unwrapping is linear, so it is enough to unwrap the difference. Renders are clamped as a photograph is.
    both = torch.cat([image - rendering.image.clamp(0, 1), (image - relit.clamp(0, 1)) * rendering.mask], dim=1)
    bare = bare_skin(skin)
    unwrapped, visibility = chart.unwrap(torch.cat([both * bare, bare], dim=1), rendering)
    difference, unexplained, shown = (unwrapped * visibility).split([PICTURE_CHANNELS, PICTURE_CHANNELS, 1], dim=1)
    own = torch.cat([difference, shown], dim=1)
    completed = own + (1 - shown) * chart.mirror(own)
    increment = spread(*completed.split([PICTURE_CHANNELS, 1], dim=1)) * chart.mask
    photograph = chart.bake(rendering.vertex_colors) + increment
    relief = relief_from_shading(chart, unexplained, shown, illumination, rendering)
    return UnwrappedFace(increment, photograph, relief)


def bare_skin(skin: Tensor) -> Tensor:
    """(B, 1, H, W) skin weights that fade to 0 near the skin's borders, where hair and shadows lie."""
    reach = max(1, round(SKIN_EDGE * skin.shape[-1]))
    window: dict[str, Any] = {"kernel_size": 2 * reach + 1, "stride": 1, "padding": reach}
    return avg_pool2d(-max_pool2d(-saturate_skin(skin), **window), **window, count_include_pad=False)


def spread(values: Tensor, weight: Tensor) -> Tensor:
    """Fill texels without weight smoothly from those around them, by a pyramid (Gortler et al. 1996, pull and push).

    Args:
        values: (B, C, R, R) multiplied by their weight.
        weight: (B, 1, R, R) in [0, 1].

    Returns:
        (B, C, R, R): the values where the weight is 1; 0 for a face without any weight.
    """
    if values.shape[-1] == 1:
        return values / torch.where(weight > 0, weight, 1)
    pooled, covered = (avg_pool2d(maps, 2, ceil_mode=True) for maps in (values, weight))
    trust = (4 * covered).clamp(max=1)
    coarser = spread(pooled * trust / torch.where(covered > 0, covered, 1), trust)
    return values + (1 - weight) * interpolate(coarser, values.shape[-2:], mode="bilinear")


class WaveletEncoder(nn.Module):
    """Wavelet transform perception encoder (section 3.4.1): features of the details that a photograph holds.

    The paper decomposes the photograph itself, and hands the features to decoders in UV space. Here the photograph is
    unwrapped first, so that a feature lies at the texel that it describes. LH, HL and HH of each level enter; LL does
    not. The finest features are the inverse transform without LL, which is a picture of the details.

    Args:
        widths: channels of the features at each level. Their number is the number of levels.
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
        """Zeros in the shapes that `forward` returns."""
        features, (height, width) = [], photograph.shape[-2:]
        for channels in self.widths:
            features.append(photograph.new_zeros(len(photograph), channels, height, width))
            height, width = (height + 1) // 2, (width + 1) // 2
        return features


class AlbedoModule(nn.Module):
    """Smooth albedo map and wavelet features -> the detail of the albedo (section 3.4.2, figure 3).

    An untrained one adds nothing. Colours as wide as the face are left to the coarse albedo: there the errors of the
    light and of the coarse shape would be painted on the skin.

    Args:
        widths: channels at each scale, the finest first. There is one wavelet level less than scales.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Encoder([PICTURE_CHANNELS, *[0] * (len(widths) - 1)], widths)
        self.perception = WaveletEncoder(widths[1:])
        joined = [own + perceived for own, perceived in zip(widths, self.perception.widths, strict=True)]
        self.decoder = Decoder(joined, widths)
        self.head = quiet_head(widths[0] + PICTURE_CHANNELS, PICTURE_CHANNELS)
        # This layout is a quarter faster on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, smooth: Tensor, photograph: Tensor, perceive: bool = True) -> Tensor:
        """The detail to add to smooth albedo maps.

        Args:
            smooth: (B, 3, R, R) the coarse face's albedo, RGB.
            photograph: (B, 3, R, R) in UV space.
            perceive: False puts zeros in the place of the wavelet features.

        Returns:
            (B, 3, R, R) RGB, of either sign.
        """
        perceived = self.perception(photograph) if perceive else self.perception.silence(photograph)
        joined = [torch.cat(level, dim=1) for level in zip(self.encoder([smooth]), perceived, strict=True)]
        return without_wide_waves(self.head(torch.cat([self.decoder(joined), perceived[0]], dim=1)))


class DisplacementModule(nn.Module):
    """Increment image and wavelet features -> displacement map, by two parallel branches (section 3.4.3, figure 4).

    An untrained one displaces nothing.

    Args:
        widths: channels at each scale, the finest first. There is one wavelet level less than scales.
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
            face: of B photographs; the increment and the relief are the input.
            photograph: (B, 3, R, R) in UV space.
            perceive: False puts zeros in the place of the wavelet branch.

        Returns:
            (B, 1, R, R) decimetres along the normals, at most `most` either way.
        """
        relief = DETAIL_SCALE / self.most * face.relief
        found = self.decoder(self.encoder([torch.cat([DETAIL_SCALE * face.increment, relief], dim=1)]))
        perceived = self.perception_decoder(self.perception(photograph)) if perceive else torch.zeros_like(found)
        return self.bounded(self.most * without_wide_waves(self.head(torch.cat([found, perceived, relief], dim=1))))

    def bounded(self, displacement: Tensor) -> Tensor:
        """The same, at most `most` either way; small ones hardly change."""
        return self.most * (displacement / self.most).tanh()
