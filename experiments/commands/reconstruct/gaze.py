"""Where a photographed face looks: the iris is the disc of the eyeball that is darkest against the white about it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from datamodules.preparation.skin import polygon_mask
from experiments.commands.reconstruct.head_parts import head_parts
from losses.aspect_ratio import aspect_ratios
from renderers.camera import euler_to_rotation
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.default.gaze import fixation
from renderers.face_models.default.whole_head import WholeHead, load_whole_head
from renderers.landmarks68 import LEFT_EYE, RIGHT_EYE

EYES = (LEFT_EYE, RIGHT_EYE)  # the subject's left one first, as in `fixation`
SHUT = 0.14  # height over width of the opening between the lids, below which an eye says nothing
IRIS = float(np.sin(np.radians(20.0)))  # radius over that of the eyeball
SHARPNESS = 60.0  # of the weights by which the best places are averaged, per unit of contrast
LEAST_CONTRAST = 0.05  # of the disc and the rest of the eye; below it the picture shows no iris
LEAST_PIXELS = 30  # of an opening, in the disc and about it
ASIDE = ("eyeLookIn", "eyeLookOut")
FAR = 100.0  # decimetres: both eyes look at one point there
WHITE, BLACK = 0.9, 0.05  # quantiles of an eye's brightness that become 1 and 0
LEAST_RANGE = 8.0  # between these, of 255
SELDOM = np.array([0.5, 2.0, 0.5])  # what a gaze 1 aside, up or away from straight ahead loses, by the square
_SINES = np.stack(np.meshgrid(*2 * [np.linspace(-0.7, 0.7, 41)]), axis=-1).reshape(-1, 2)
DIRECTIONS = np.column_stack([_SINES, np.sqrt(1 - (_SINES**2).sum(axis=1))])
"""(D, 3) unit, where the camera sees an eye look: right, up, towards it."""


def with_gaze(
    face_model: MorphableModel, coefficients: Coefficients, projection: Tensor, picture: np.ndarray, marks: np.ndarray
) -> Coefficients:
    """The coefficients with the eyes turned to where the picture's eyes look, straight ahead where both are shut.

    The turn to the side is measured. How far up they look stays as it was fitted: on drawn heads the
    height of the fitted eyeball was not known well enough, for a millimetre is five degrees.

    Models without eyeballs of ours, and pictures that show no iris, keep what they have.

    Args:
        face_model: the decoder.
        coefficients: B = 1.
        projection: (3, 4) from model space, decimetres, to the picture's pixels.
        picture: (H, W, 3) uint8
        marks: (68, 2) landmarks in the picture.
    """
    if head_parts(face_model) is None:
        return coefficients
    centers, axes, radius = _eyeballs(coefficients)
    rotation = euler_to_rotation(coefficients.angles)[0].double().numpy()
    right_and_left = aspect_ratios(torch.from_numpy(marks)[None])[0, :2].numpy()
    opened = right_and_left[::-1] >= SHUT
    if not opened.any():
        return _looking(face_model, coefficients, centers, axes, axes.mean(axis=0))
    ahead = (axes @ rotation.T).mean(axis=0)
    contrast = np.zeros(len(DIRECTIONS))
    for eye in np.flatnonzero(opened):
        ball = _on_picture(projection.double().numpy(), rotation, centers[eye], radius)
        contrast += iris_contrast(picture, marks[EYES[eye]], *ball)
    if contrast.max() < LEAST_CONTRAST:
        return coefficients
    contrast -= (DIRECTIONS - ahead) ** 2 @ SELDOM
    weights = np.exp(SHARPNESS * (contrast - contrast.max()))
    return _looking(face_model, coefficients, centers, axes, rotation.T @ (weights @ DIRECTIONS))


def _looking(
    face_model: MorphableModel, coefficients: Coefficients, centers: np.ndarray, axes: np.ndarray, direction: np.ndarray
) -> Coefficients:
    """The coefficients with both eyes turned to the side as (3,) says."""
    names = face_model.expression_names
    target = centers.mean(axis=0) + FAR * direction / np.linalg.norm(direction)
    turned = torch.from_numpy(fixation(centers[None], axes[None], target[None], names)[0]).to(coefficients.expression)
    aside = torch.tensor([name.startswith(ASIDE) for name in names])
    return replace(coefficients, expression=torch.where(aside, turned, coefficients.expression))


def iris_contrast(picture: np.ndarray, opening: np.ndarray, middle: np.ndarray, radius: float) -> np.ndarray:
    """How much like an iris the eye looks in each of `DIRECTIONS`.

    There a disc of the iris's size is laid on the eyeball. What counts is by how much its pixels are darker than the
    others between the lids, in red light: irises of every colour reflect less of that than the white does.

    Args:
        picture: (H, W, 3) uint8
        opening: (6, 2) landmarks of the lids, pixels.
        middle: (2,) the eyeball's centre in the picture.
        radius: the eyeball's, pixels.

    Returns:
        (D,) differences of brightness, of 1 between the eye's darkest and brightest parts; 0 where nothing is told.
    """
    rows, columns = np.nonzero(polygon_mask(opening, *picture.shape[:2]))
    if len(rows) < 2 * LEAST_PIXELS:
        return np.zeros(len(DIRECTIONS))
    red = picture[rows, columns, 0].astype(float)
    dark, light = np.quantile(red, [BLACK, WHITE])
    darkness = 1 - ((red - dark) / max(light - dark, LEAST_RANGE)).clip(0, 1)
    places = (np.stack([columns, rows], axis=1) + 0.5 - middle) / radius * [1, -1]
    depth = np.sqrt((1 - (places**2).sum(axis=1)).clip(0))
    disc = np.column_stack([places, depth]) @ DIRECTIONS.T > np.sqrt(1 - IRIS**2)
    inside = disc.sum(axis=0)
    outside = len(rows) - inside
    within = darkness @ disc / inside.clip(1)
    rest = (darkness.sum() - darkness @ disc) / outside.clip(1)
    return np.where((inside >= LEAST_PIXELS) & (outside >= LEAST_PIXELS), within - rest, 0.0)


def _on_picture(
    projection: np.ndarray, rotation: np.ndarray, center: np.ndarray, radius: float
) -> tuple[np.ndarray, float]:
    """Middle and radius of a ball in the picture's pixels."""
    right = rotation.T @ [radius, 0.0, 0.0]  # in model space, to the camera's right
    first, second = (projection @ [*point, 1.0] for point in (center, center + right))
    middle, side = first[:2] / first[2], second[:2] / second[2]
    return middle, float(np.linalg.norm(side - middle))


@lru_cache(maxsize=1)
def _poles() -> tuple[np.ndarray, np.ndarray, WholeHead]:
    """(4, 3) and (4, 3, I) the mean and the identities of the eyeballs' poles: left front and back, right likewise."""
    whole = load_whole_head()
    rows = whole.eye_poles.ravel()
    return whole.mean_shape[rows].astype(float), whole.identity_basis[rows].astype(float), whole


def _eyeballs(coefficients: Coefficients) -> tuple[np.ndarray, np.ndarray, float]:
    """Centres (2, 3) and axes at rest (2, 3), left first, and the radius, decimetres."""
    mean, basis, whole = _poles()
    rows = whole.eye_poles.ravel()
    moved = whole.expression_basis[rows].astype(float) @ coefficients.expression[0].double().numpy()
    points = mean + basis @ coefficients.identity[0].double().numpy()
    arms = points.reshape(2, 2, 3)
    axes = (arms[:, 0] - arms[:, 1]) / 2
    lengths = np.linalg.norm(axes, axis=1)
    centers = arms.mean(axis=1) + moved.reshape(2, 2, 3).mean(axis=1)
    return centers, axes / lengths[:, None], float(lengths.mean())
