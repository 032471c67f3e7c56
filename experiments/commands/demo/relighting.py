"""A reconstructed face with another expression, in other light: what the page's sliders draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.texture import believable_colors, facing
from experiments.commands.relight import lamp_illumination
from renderers.camera import default_intrinsics
from renderers.face_models.base import MorphableModel
from renderers.face_renderer import FaceRenderer

SIDE = 448  # pixels of the picture
SUPERSAMPLING = 2
BACKGROUND = 0.93
DARKEST, MOST_RATIO = 0.04, 4.0  # of a colour that another is divided by, and of the quotient
# What a slider says: the ARKit expressions that it moves, each by its weight.
MOVES = {
    "Open the mouth": ("jawOpen",),
    "Smile": ("mouthSmileLeft", "mouthSmileRight"),
    "Pucker": ("mouthPucker",),
    "Raise the brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "Close the eyes": ("eyeBlinkLeft", "eyeBlinkRight"),
}
UNNAMED, DEVIATIONS = 5, 2.0  # of expressions without names: how many are shown, and how far they go


@dataclass(frozen=True)
class Move:
    """What one slider adds to the fitted expression.

    Attributes:
        label: what it is called.
        columns: of the expression coefficients that it moves.
        limit: the slider goes from -limit to limit.
    """

    label: str
    columns: tuple[int, ...]
    limit: float


@dataclass(frozen=True)
class Light:
    """A soft lamp in place of the photograph's light.

    Attributes:
        share: 0 is the photograph's light alone, 1 the lamp's.
        right: degrees that the lamp stands to the picture's right.
        up: degrees that it stands above the camera.
    """

    share: float = 0.0
    right: float = 0.0
    up: float = 0.0


def moves_of(face_model: MorphableModel) -> tuple[Move, ...]:
    """The sliders for a face model's expressions; its strongest ones where they have no names of ARKit's."""
    columns = {name: column for column, name in enumerate(face_model.expression_names)}
    known = {label: names for label, names in MOVES.items() if all(name in columns for name in names)}
    if known:
        return tuple(Move(label, tuple(columns[name] for name in names), 1.0) for label, names in known.items())
    count = min(UNNAMED, face_model.expression_size)
    return tuple(Move(f"Expression {column + 1}", (column,), DEVIATIONS) for column in range(count))


class FacePainter:
    """Draws one face in its photograph's pose.

    The texture holds the photograph's light. Where a surface had the colour a in that light and has b in another, its
    texel is multiplied by b / a.

    Args:
        renderer: of the face.
        face: whose texture is drawn.
    """

    def __init__(self, renderer: FaceRenderer, face: ReconstructedFace) -> None:
        self.renderer, self.coefficients = renderer, face.coefficients
        self.moves = moves_of(renderer.face_model)
        texture = torch.from_numpy(face.texture).float().permute(2, 0, 1)[None] / 255
        self.texture = texture.flip(2)  # row 0 is now v = 0, as `grid_sample` counts
        fitted = face.rendering
        self.fitted_colors = believable_colors(fitted, facing(fitted)).clamp_min(DARKEST)

    @torch.no_grad()
    def draw(self, amounts: Sequence[float] = (), light: Light | None = None) -> np.ndarray:
        """The face on a light ground.

        Args:
            amounts: what is added by each of `moves`; those that are absent add nothing.
            light: the photograph's where absent.

        Returns:
            (SIDE, SIDE, 3) uint8
        """
        side = SIDE * SUPERSAMPLING
        coefficients = replace(
            self.coefficients,
            expression=self._expression(amounts),
            illumination=self._illumination(light or Light()),
        )
        rendering = self.renderer(coefficients, default_intrinsics(side)[None], (side, side))
        ratio = (rendering.vertex_colors / self.fitted_colors).clamp(0, MOST_RATIO)
        uv = self.renderer.face_model.uv[None]
        drawn = rendering.draw(torch.cat([ratio, 2 * uv - 1], dim=-1))
        colors = grid_sample(self.texture, drawn[:, 3:].movedim(1, -1), align_corners=False, padding_mode="border")
        picture = torch.where(rendering.mask, colors * drawn[:, :3], BACKGROUND)
        shown = avg_pool2d(picture.clamp(0, 1), SUPERSAMPLING)[0].permute(1, 2, 0)
        return (shown * 255).round().byte().numpy()

    def _expression(self, amounts: Sequence[float]) -> Tensor:
        expression = self.coefficients.expression.clone()
        for move, amount in zip(self.moves, amounts, strict=False):
            expression[:, list(move.columns)] += amount
        return expression.clamp(0, 1) if self.renderer.face_model.expression_names else expression

    def _illumination(self, light: Light) -> Tensor:
        fitted = self.coefficients.illumination
        right, up = np.radians([light.right, light.up])
        position = fitted.new_tensor([[np.sin(right) * np.cos(up), np.sin(up), np.cos(right) * np.cos(up)]])
        return torch.lerp(fitted, lamp_illumination(fitted, position), light.share)
