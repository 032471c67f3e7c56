"""Detail that linear face models cannot hold: a person's own skin, and lines that deepen with the expression."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from datamodules.synthesis.face_places import FacePlaces, smoothstep
from datamodules.synthesis.skin_marks import paint_skin
from datamodules.synthesis.wrinkles import MILLIMETRE, Wrinkles
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.uv.chart import UVChart

DETAIL_VERSION = 4  # raise it with every change of the painted or carved detail
DEEPEST = 3.0 * MILLIMETRE
# Standard deviations of the skin's relief without lines: pores and grain, scars, fat under the skin.
GRAIN, LUMPS, FAT = 0.03 * MILLIMETRE, 0.12 * MILLIMETRE, 1.00 * MILLIMETRE


class FacialDetail:
    """Procedural texture and displacement in a face model's UV space, without training.

    Args:
        face_model: any with 68 landmarks, the region `skin` and a UV chart. Lines deepen with single expressions if
            these have ARKit's names, else with the strength of the whole expression.
        size: texels along each side of the maps, R.
    """

    def __init__(self, face_model: LinearModel, size: int = 128) -> None:
        self.chart = UVChart(face_model, size)
        self.places = FacePlaces(face_model, self.chart)
        self.wrinkles = Wrinkles(self.places)
        names = {name: column for column, name in enumerate(face_model.expression_names)}
        self.columns = {name: names[name] for name in self.wrinkles.actions if name in names}
        self._span = LinearSpan(face_model, self.chart, self.places)

    @torch.no_grad()
    def texture(self, generator: np.random.Generator) -> Tensor:
        """One person's skin: freckles, moles, flush, beard shadow, make-up, mottling.

        The part within the span of the face model's albedo basis is removed (least squares over the skin's vertices),
        so that the true albedo coefficients stay the best ones.

        Args:
            generator: the draw depends on its state alone.

        Returns:
            (3, R, R) display RGB to add to the albedo, within about 0.5; 0 on eyeballs, inside the mouth and outside
            the chart.
        """
        painted = self.places.skin[:, None] * paint_skin(self.places, generator)
        return self._span.remove(self.places.to_map(painted))

    @torch.no_grad()
    def displacement(self, generator: np.random.Generator, expression: np.ndarray) -> Tensor:
        """One person's lines with one expression, and the skin's grain.

        Args:
            generator: the draw depends on its state alone.
            expression: (E,) coefficients.

        Returns:
            (1, R, R) decimetres along the normals, within `DEEPEST`; 0 on eyeballs, inside the mouth and outside the
            chart. With the same generator state, a stronger expression only deepens the lines.
        """
        places = self.places
        relief = GRAIN * generator.uniform(0.5, 1.5) * places.noise(generator, "fine")
        relief += LUMPS * generator.uniform(0.3, 1.5) * places.noise(generator, "medium")
        relief += FAT * generator.uniform(0.5, 1.5) * places.noise(generator, "soft")
        relief += self.wrinkles.carve(generator, self.action_weights(expression), len(places))
        fade = places.front * places.skin * smoothstep(places.eyes, 0.0, -0.03)
        # A smooth bound instead of a cut, so that crossing lines stay lines.
        return places.to_map((fade * DEEPEST * np.tanh(relief / DEEPEST))[:, None].astype(np.float32))

    def action_weights(self, expression: np.ndarray) -> dict[str, float]:
        """The weight, 0 to 1, of each action of the lines in an expression (E,)."""
        if self.columns:
            return {name: float(np.clip(expression[column], 0, 1)) for name, column in self.columns.items()}
        strength = float(min(1.0, np.sqrt(np.mean(np.square(expression)))))
        return dict.fromkeys(self.wrinkles.actions, strength)


class LinearSpan:
    """The span of a face model's albedo basis on the skin.

    Args:
        face_model: with A albedo coefficients.
        chart: of the maps.
        places: its texels of skin.
    """

    def __init__(self, face_model: LinearModel, chart: UVChart, places: FacePlaces) -> None:
        self.chart, self.uv = chart, face_model.uv
        skin = torch.zeros(face_model.vertex_count, 1)
        skin[face_model.regions["skin"]] = 1
        basis = (face_model.albedo_basis * skin[..., None]).flatten(0, 1).double()
        left, scales, _ = torch.linalg.svd(basis, full_matrices=False)
        self.rows = left[:, scales > 1e-6 * scales[0]].float()
        self.cover = places.to_map(places.skin[:, None])

    def remove(self, texture: Tensor) -> Tensor:
        """(3, R, R) -> (3, R, R) without the part of its vertex samples that lies in the span."""
        sampled = self.chart.sample(texture[None], self.uv[None])[0]
        inside = (self.rows @ (self.rows.T @ sampled.flatten())).unflatten(0, (-1, 3))
        return texture - self.cover * self.chart.bake(inside[None])[0]


def detail_key(face_model: MorphableModel) -> dict[str, object]:
    """All that the detail depends on beside the face model's fingerprint, for the names of caches."""
    parts = (face_model.uv, face_model.landmark_indices, face_model.regions["skin"])
    content = b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts)
    content += " ".join(face_model.expression_names).encode()
    return {"version": DETAIL_VERSION, "chart": hashlib.sha256(content).hexdigest()[:12]}
