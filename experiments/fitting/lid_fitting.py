"""Whether the eyes are shut, by trial: detectors place the landmarks of shut lids half open, but the pixels tell.

A rasterized picture has no gradient where the edge of a lid moves over the eyeball, so the lids are tried at several
places. The construction is our own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from experiments.fitting.landmark_fitting import LandmarkProblem
from losses.photometric import render_loss
from renderers.coefficients import Coefficients
from renderers.face_renderer import FaceRenderer
from renderers.landmarks68 import LEFT_EYE, RIGHT_EYE

TRIED = (0.5, 0.75, 1.0)  # weights of the blend shape that shuts an eye
MOVED = 0.2  # of that weight: where the pixels ask for more than this, they contradict the landmarks
DISTRUST = 3.0  # what the deviation of the lids' landmarks is multiplied by then
BLINKS = {
    **dict.fromkeys(("eyeBlinkLeft", "eyeBlink_L"), LEFT_EYE.start),
    **dict.fromkeys(("eyeBlinkRight", "eyeBlink_R"), RIGHT_EYE.start),
}  # the first landmark of the eye that an expression shuts


@torch.no_grad()
def fit_lids(
    renderer: FaceRenderer,
    problem: LandmarkProblem,
    image: Tensor,
    skin: Tensor,
    scale: tuple[float, float],
    coefficients: Coefficients,
    photometric_noise: float,
) -> tuple[Coefficients, LandmarkProblem]:
    """Shuts each eye of B faces further where the pixels say so; models without named blinks stay as they are.

    It never opens one: detectors err towards open eyes, and painted or shaded lids look like an eye.

    Args:
        renderer: of pictures as large as `image`.
        problem: what the landmarks say, in pixels of the input images.
        image: (B, 3, H, W) sRGB in [0, 1].
        skin: (B, 1, H, W) weights; round the eyes all pixels count here.
        scale: (x, y) pixels of `image` per pixel of the input images.
        coefficients: of B faces, with fitted colours.
        photometric_noise: see `FitSettings`.

    Returns:
        The coefficients, and the problem with less trust in the lids that were changed.
    """
    intrinsics = problem.intrinsics * image.new_tensor([*scale, 1.0]).view(3, 1)
    places = problem.target * image.new_tensor(scale)
    for column, name in enumerate(renderer.face_model.expression_names):
        if name not in BLINKS:
            continue
        eye = BLINKS[name]
        weight = torch.maximum(skin, _disc(places[:, eye], places[:, eye + 3], skin))
        doubted = problem.doubt.clone()
        doubted[:, [eye + 1, eye + 2, eye + 4, eye + 5]] *= DISTRUST
        doubting = replace(problem, doubt=doubted)
        before = coefficients.expression[:, column]
        tried = torch.stack([*(torch.full_like(before, value) for value in TRIED), before])
        energies = []
        for value in tried:
            trial = _with(coefficients, column, value)
            rendering = renderer(trial, intrinsics)
            photometric = render_loss(rendering.image, image, rendering.mask, weight)
            points = rendering.landmarks / image.new_tensor(scale)
            energies.append(photometric / photometric_noise + doubting.energy(points, trial))
        best = tried.gather(0, torch.stack(energies).argmin(dim=0)[None])[0]
        moved = best - before > MOVED
        problem = replace(problem, doubt=torch.where(moved[:, None], doubted, problem.doubt))
        coefficients = _with(coefficients, column, torch.where(moved, best, before))
    return coefficients, problem


def _with(coefficients: Coefficients, column: int, value: Tensor) -> Coefficients:
    """The coefficients with (B,) weights of one expression."""
    expression = coefficients.expression.clone()
    expression[:, column] = value
    return replace(coefficients, expression=expression)


def _disc(corner: Tensor, other: Tensor, like: Tensor) -> Tensor:
    """(B, 1, H, W) as `like`: 1 inside the circle whose diameter joins the corners of an eye, each (B, 2) pixels."""
    height, width = like.shape[-2:]
    y = torch.arange(height, device=like.device)[:, None] + 0.5
    x = torch.arange(width, device=like.device) + 0.5
    centre, radius = ((corner + other) / 2)[..., None, None], (corner - other).norm(dim=-1) / 2
    inside = torch.hypot(x - centre[:, 0], y - centre[:, 1]) < radius[:, None, None]
    return inside.to(like.dtype)[:, None]
