"""How well the motion of a drawn clip was found: jitter, lag, and how much is left of its blinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from renderers.face_models.linear import LinearModel
from renderers.landmarks68 import LEFT_EYE, RIGHT_EYE
from tests.conf.drawn_clip import DrawnClip

LAGS = np.arange(-5, 6)


@dataclass(frozen=True)
class ClipErrors:
    """Of what was found in a clip, beside the truth.

    Attributes:
        jitter: root mean square of the second differences of the three angles, degrees.
        true_jitter: the truth's.
        lags: (4,) frames by which pitch, yaw, roll and the lids follow the truth.
        blink_share: of the lids' true motion, the mean over blinks and both eyes.
        lid_correlation: of the height of both eyes with the truth, over all frames.
        angle_error: root mean square of the yaw's error without its mean, degrees.
    """

    jitter: float
    true_jitter: float
    lags: np.ndarray
    blink_share: float
    lid_correlation: float
    angle_error: float


def clip_errors(
    model: LinearModel, clip: DrawnClip, angles: np.ndarray, identity: torch.Tensor, expression: np.ndarray
) -> ClipErrors:
    """Compare (T, 3) radians, (I,) and (T, E) with the truth of a clip."""
    true = clip.coefficients
    true_angles, found = true.angles.double().numpy(), np.asarray(angles, dtype=np.float64)
    lids = openness(model, identity, torch.from_numpy(expression).float())
    true_lids = openness(model, true.identity[0], true.expression)
    curves = [*zip(found.T, true_angles.T, strict=True), (lids.mean(axis=1), true_lids.mean(axis=1))]
    off = np.degrees(found - true_angles)[:, 1]
    return ClipErrors(
        jitter=_jitter(found),
        true_jitter=_jitter(true_angles),
        lags=np.array([lag(one, other) for one, other in curves]),
        blink_share=float(np.mean(closing(lids, clip.blinks) / closing(true_lids, clip.blinks))),
        lid_correlation=float(np.corrcoef(lids.mean(axis=1), true_lids.mean(axis=1))[0, 1]),
        angle_error=float(off.std()),
    )


@torch.no_grad()
def openness(model: LinearModel, identity: torch.Tensor, expression: torch.Tensor) -> np.ndarray:
    """(T, 2) the height of the right and the left eye over its width, of T expressions."""
    points = model.landmarks(model.shape(identity.expand(len(expression), -1), expression)).numpy()
    heights = []
    for eye in (RIGHT_EYE, LEFT_EYE):
        outer, upper, upper_2, inner, lower_2, lower = np.moveaxis(points[:, eye], 1, 0)
        tall = np.linalg.norm(upper - lower, axis=-1) + np.linalg.norm(upper_2 - lower_2, axis=-1)
        heights.append(tall / 2 / np.linalg.norm(outer - inner, axis=-1))
    return np.stack(heights, axis=1)


def closing(lids: np.ndarray, blinks: list[int]) -> np.ndarray:
    """(N, 2) by which share of its usual height each eye shuts in N blinks."""
    usual = np.median(lids, axis=0)
    return np.stack([1 - lids[max(0, row - 2) : row + 3].min(axis=0) / usual for row in blinks])


def lag(found: np.ndarray, true: np.ndarray) -> int:
    """Frames by which a curve follows another: where their correlation is largest."""
    edge = int(LAGS.max())
    middle = true[edge : len(true) - edge]
    shifted = [found[edge + step : len(found) - edge + step] for step in LAGS]
    return int(LAGS[np.argmax([np.corrcoef(middle, curve)[0, 1] for curve in shifted])])


def _jitter(angles: np.ndarray) -> float:
    return float(np.sqrt(np.square(np.degrees(np.diff(angles, n=2, axis=0))).mean()))
