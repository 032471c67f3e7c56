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
    """What a synthetic image was made from. B images.

    Attributes:
        coefficients: (B, L) in the layout of the face model that drew them.
        depth: (B, 1, H, W) decimetres, 0 where there is no face; `depth > 0` is the exact mask.
        light_position: (B, 3) of the highlights, decimetres in the posed frame; this and the next four are None unless
            the faces have highlights.
        shininess: (B, 1) exponent of the highlights.
        intensity: (B, 1) of their lamp, positive.
        diffuse: (B, 3, H, W) what the image would be without highlights, in [0, 1], 0 where there is no face.
        specular: (B, 3, H, W) what it would be of the highlights alone, likewise; inside the face the image is the
            clamped sum of both as light, `encode(decode(diffuse) + decode(specular))` of `renderers.color`.
        vertex_albedo: (B, V, 3) RGB in [0, 1], the linear albedo with the detail that no face model has; this and
            the next are None unless the faces have such detail.
        normals: (B, 3, H, W) unit, camera space, of the surface with its wrinkles; 0 where there is no face.
        parsing: (B, 1, H, W) uint8, what each pixel shows, a number of `synthesis.parsing.PARSING`; this and
            the next are None unless whole heads are drawn. Then depth is 0 too where something hides the face.
        landmarks_visible: (B, 68) bool, which landmarks lie inside the picture with nothing before them.
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
        truth: where the images are synthetic.
        skin_probability: (B, 1, H, W) how likely each pixel's colour is skin's, in [0, 1], where the data tells it.
        contour: (B,) bool, the images whose jaw landmarks mark the visible outline of the face (as dlib's do) and not
            fixed points of the head; None: no image's do.
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
        views: (G, N) rows of `image` that show the same face, the target view in the middle column. Images that no row
            names are single views: they feed the 2D terms only. G may be 0.
        epipolar: (G,) bool, the groups whose epipolar term counts; None: every group's does.
    """

    views: Tensor | None = None
    epipolar: Tensor | None = None

    def pairs(self) -> tuple[Tensor, Tensor]:
        """(target, source) rows of `image`, each (G * (N - 1),): every source view beside its group's target.

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
        """Rows of `image` that are no source view: the middle of every group, and the single views."""
        is_target = torch.ones(len(self), dtype=torch.bool, device=self.image.device)
        is_target[self.pairs()[1]] = False
        return is_target.nonzero().squeeze(1)


@dataclass
class CorruptedBatch(FaceBatch):
    """B clean faces, and the same pictures occluded or noisy.

    Attributes:
        corrupted: the images by the corruption's name ("rational", "delusional", "noisy"), each (B, 3, H, W) in [0, 1].
        masks: the altered pixels by the same names, each (B, 1, H, W) bool.
    """

    corrupted: dict[str, Tensor] = field(kw_only=True)
    masks: dict[str, Tensor] = field(kw_only=True)
