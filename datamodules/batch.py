"""Typed batches, with shapes, units and ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="_Movable")


class _Movable:
    """Lets Lightning move a batch to its device, field by field."""

    def to(self: B, *args: Any, **kwargs: Any) -> B:
        held = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **{name: _moved(value, *args, **kwargs) for name, value in held.items()})  # type: ignore[type-var]


def _moved(value: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(value, dict):
        return {name: _moved(part, *args, **kwargs) for name, part in value.items()}
    return value.to(*args, **kwargs) if hasattr(value, "to") else value


@dataclass
class Truth(_Movable):
    """The exact truth of B synthetic images. Maps are 0 where there is no face.

    Attributes:
        coefficients: (B, L) in the layout of the face model that drew them.
        depth: (B, 1, H, W) decimetres; `depth > 0` is the exact mask. With whole heads it is also 0 where something
            hides the face.
        light_position: (B, 3) of the highlights' lamp, decimetres in the posed frame. This and the next four are None
            unless the faces have highlights.
        shininess: (B, 1) exponent of the highlights.
        intensity: (B, 1) of their lamp, positive.
        diffuse: (B, 3, H, W) the image without highlights, in [0, 1].
        specular: (B, 3, H, W) the highlights alone, in [0, 1]. Inside the face the image is the clamped sum of both as
            light, `encode(decode(diffuse) + decode(specular))` of `renderers.color`.
        vertex_albedo: (B, V, 3) RGB in [0, 1], the linear albedo with detail that no face model has. This and the next
            are None unless the faces have such detail.
        normals: (B, 3, H, W) unit, camera space, of the surface with its wrinkles.
        parsing: (B, 1, H, W) uint8, a number of `synthesis.parsing.PARSING` for each pixel. This and the next are None
            unless whole heads are drawn.
        landmarks_visible: (B, 68) bool, the landmarks that lie inside the picture with nothing in front of them.
    """

    coefficients: Tensor
    depth: Tensor
    light_position: Tensor | None = None
    shininess: Tensor | None = None
    intensity: Tensor | None = None
    diffuse: Tensor | None = None
    specular: Tensor | None = None
    vertex_albedo: Tensor | None = None
    normals: Tensor | None = None
    parsing: Tensor | None = None
    landmarks_visible: Tensor | None = None


@dataclass
class FaceBatch(_Movable):
    """B aligned face images.

    Attributes:
        image: (B, 3, H, W) sRGB in [0, 1].
        landmarks: (B, 68, 2) pixels, continuous, origin at the image's top-left corner.
        skin: (B, 1, H, W) skin weight in [0, 1].
        intrinsics: (B, 3, 3) pixels.
        truth: of synthetic images; else None.
        skin_probability: (B, 1, H, W) probability in [0, 1] that the pixel's colour is skin's; None if not computed.
        contour: (B,) bool. True: the image's jaw landmarks mark the visible outline of the face, as dlib's do. False:
            they are fixed points of the head. None: false for all images.
    """

    image: Tensor
    landmarks: Tensor
    skin: Tensor
    intrinsics: Tensor
    truth: Truth | None = None
    skin_probability: Tensor | None = field(default=None, kw_only=True)
    contour: Tensor | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)"""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass
class MultiViewBatch(FaceBatch):
    """Images of which some are views of one person with one expression.

    Attributes:
        views: (G, N) rows of `image` that show the same face, the target view in the middle column. Images that it does
            not name are single views, which have the 2D terms only. G may be 0.
        epipolar: (G,) bool, the groups whose epipolar term counts; None: all groups.
    """

    views: Tensor | None = None
    epipolar: Tensor | None = None

    def pairs(self) -> tuple[Tensor, Tensor]:
        """(target, source) rows of `image`, each (G * (N - 1),). Each pair has one source view and its group's target.

        >>> batch = MultiViewBatch(*[torch.zeros(3, 1)] * 4, views=torch.tensor([[0, 1, 2]]))
        >>> [rows.tolist() for rows in batch.pairs()]
        [[1, 1], [0, 2]]
        """
        if self.views is None or self.views.numel() == 0:
            nothing = torch.zeros(0, dtype=torch.long, device=self.image.device)
            return nothing, nothing
        middle = self.views.shape[1] // 2
        sources = torch.cat([self.views[:, :middle], self.views[:, middle + 1 :]], dim=1)
        targets = self.views[:, middle : middle + 1].expand_as(sources)
        return targets.flatten(), sources.flatten()

    def epipolar_pairs(self) -> Tensor:
        """(G * (N - 1),) bool: the pairs of `pairs` whose epipolar term counts."""
        targets, _ = self.pairs()
        if self.epipolar is None or not len(targets):
            return torch.ones_like(targets, dtype=torch.bool)
        return self.epipolar.repeat_interleave(len(targets) // len(self.epipolar))

    def targets(self) -> Tensor:
        """Rows of `image` that are not source views: the target of every group, and the single views."""
        is_target = torch.ones(len(self), dtype=torch.bool, device=self.image.device)
        is_target[self.pairs()[1]] = False
        return is_target.nonzero().squeeze(1)


@dataclass
class CorruptedBatch(FaceBatch):
    """B clean faces, and occluded or noisy copies of their pictures.

    Attributes:
        corrupted: the images by the corruption's name ("rational", "delusional", "noisy"), each (B, 3, H, W) in [0, 1].
        masks: the altered pixels by the same names, each (B, 1, H, W) bool.
    """

    corrupted: dict[str, Tensor] = field(kw_only=True)
    masks: dict[str, Tensor] = field(kw_only=True)
