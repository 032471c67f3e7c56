"""Many frames of one known person: expression, pose, light and lids of each, in a few hundredths of a second."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from datamodules.synthesis.landmark_noise import LandmarkNoise
from experiments.fitting.landmark_fitting import LandmarkProblem, fit_landmarks, rigid_pose
from experiments.fitting.lid_fitting import BLINKS
from experiments.fitting.personal_model import of_person, part_of
from experiments.fitting.photometric_fitting import fit_illumination
from renderers.camera import euler_to_rotation, pose_and_project
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.jaw_contour import contour_table
from renderers.landmarks68 import LANDMARKS

ROUNDS = 2  # of `fit_landmarks`; the frame's own closed-form pose is near
NOISE = 0.015  # of the landmarks, as `FitSettings.landmark_noise`
DEVIATION, LID_DEVIATION = 0.1, 0.3  # of expressions and of blinks from what is expected
LIGHT_SIZE = 96  # pixels of the picture that the light is read off
OPENINGS = torch.linspace(0, 1, 6)  # weights of a blink that are tried
ALSO = ("eyeLookDown", "eyeSquint", "eyeWide")  # how the names of what else moves the lids begin
EYE = (24, 36)  # pixels of the picture of one eye
EYE_WIDTH = 24  # pixels between its corners
ASIDE = [
    (x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
]  # pixels, each way
FEWEST = 8  # pixels by which a colour is learned
GAINS = (0.3, 2.0)  # least and most that the colours of eyes change by
EYE_REACH = 0.9  # widths of an eye round its middle that are drawn
EYE_NOISE = 0.1  # share of an open eye's colour error that weighs as much as one deviation; chosen on drawn clips
EYE_ERROR = 0.06  # of a person's eyes whose colours were not learned


@dataclass(frozen=True)
class Windows:
    """A square cut of each of B frames round the face, upright.

    Attributes:
        image: (B, 3, S, S) sRGB in [0, 1].
        intrinsics: (B, 3, 3) of the clip's camera, in pixels of the window.
        landmarks: (B, 68, 2) pixels of the window.
        expected: (B, E) the expression, from a network or zeros.
    """

    image: Tensor
    intrinsics: Tensor
    landmarks: Tensor
    expected: Tensor


@dataclass(frozen=True)
class EyeView:
    """One eye in B frames.

    Attributes:
        image: (B, 3, H, W) of the size `EYE`.
        intrinsics: (B, 3, 3) of the same picture as it is drawn.
        inside: (H, W) pixels that are near the eye.
    """

    image: Tensor
    intrinsics: Tensor
    inside: Tensor


def eye_view(windows: Windows, corner: Tensor, other: Tensor, aside: Tensor) -> EyeView:
    """An eye in the middle and `EYE_WIDTH` wide.

    Args:
        windows: B frames.
        corner: (B, 2) of the fitted face's eye, pixels of the windows.
        other: the other corner.
        aside: (2,) pixels of the view by which the eye that is seen lies aside of this one.
    """
    middle, zoom = (corner + other) / 2, EYE_WIDTH / (corner - other).norm(dim=-1).clamp_min(1)
    at = zoom.new_tensor([EYE[1] / 2, EYE[0] / 2])
    intrinsics = windows.intrinsics.clone()
    intrinsics[:, :2] *= zoom[:, None, None]
    intrinsics[:, :2, 2] += at - zoom[:, None] * middle
    places = _centres(EYE) - at
    seen = _sampled(windows.image, (places + aside) / zoom[:, None, None, None] + middle[:, None, None])
    return EyeView(seen, intrinsics, (places / at).norm(dim=-1) < 0.9)


class FrameFitter:
    """Solves frames of a person whose shape and colours are known.

    Args:
        face_model: the decoder.
        identity: (I,).
        albedo: (A,).
        expression_bounds: least and most that every expression coefficient may be.
        moving_contour: whether the jaw's landmarks mark the visible contour, see `FitSettings`.

    Attributes:
        person: a face model of this person alone, with expressions and nothing else to vary.
    """

    def __init__(
        self,
        face_model: LinearModel,
        identity: Tensor,
        albedo: Tensor,
        expression_bounds: tuple[float, float] | None,
        moving_contour: bool,
    ) -> None:
        self.person = of_person(face_model, identity, albedo)
        self.bounds = expression_bounds
        self._contour = contour_table(self.person) if moving_contour else None
        columns = {name: column for column, name in enumerate(face_model.expression_names)}
        self.blinks = {columns[name]: first for name, first in BLINKS.items() if name in columns}
        self._also = {
            columns[name]: [columns[own] for stem in ALSO if (own := name.replace("eyeBlink", stem)) in columns]
            for name in BLINKS
            if name in columns
        }
        self._eye_noise = EYE_NOISE * EYE_ERROR
        self._aside = dict.fromkeys(self.blinks, (0.0, 0.0))
        self._renderer = FaceRenderer(self.person, LIGHT_SIZE)
        self._round = self._round_eyes()
        self._eyes = FaceRenderer(part_of(self.person, self._round), EYE)

    @torch.no_grad()
    def __call__(self, windows: Windows) -> Coefficients:
        """Expression, pose and illumination of B frames, in the clip's camera; no identity and no albedo."""
        placed = self._of_landmarks(windows)
        lit = replace(placed, illumination=self._light(windows, placed))
        return replace(lit, expression=self._lids(windows, lit))

    @torch.no_grad()
    def learn_eyes(self, windows: Windows) -> None:
        """Take place and colours of the eyes from frames in most of which they are open.

        Nobody's eyes lie exactly where the face model and a detector put them. They lie in the shade of brows and lids,
        which the light of a face does not know. Without this an open eye may pass for a shut one.
        """
        placed = self._of_landmarks(windows)
        faces = replace(placed, illumination=self._light(windows, placed))
        for _ in range(2 if self.blinks else 0):
            self._learn_colors(windows, faces)
            least_errors = []
            for column in self.blinks:
                errors = [self._misplaced(windows, faces, column, aside) for aside in ASIDE]
                self._aside[column] = ASIDE[int(np.argmin(errors))]
                least_errors.append(min(errors))
            self._eye_noise = EYE_NOISE * float(np.mean(least_errors))

    def _misplaced(self, windows: Windows, faces: Coefficients, column: int, aside: tuple[float, float]) -> float:
        """Median colour error of an eye, as far open as its landmarks say, that lies so many pixels aside."""
        view = self._view(windows, faces, column, aside)
        return float(self._eye_error(view, faces).median())

    def _learn_colors(self, windows: Windows, faces: Coefficients) -> None:
        """Multiply the colours of eyes, and of what is round them, by how much brighter they are than drawn."""
        part = self._eyes.face_model
        assert isinstance(part, LinearModel)
        is_eye = torch.isin(torch.from_numpy(self._round), self.person.regions["eyes"])
        flags = is_eye.float()[None, :, None].expand(len(windows.image), -1, 1)
        ratios: list[list[Tensor]] = [[], []]
        for column in self.blinks:
            view = self._view(windows, faces, column)
            drawn = self._eyes(faces, view.intrinsics)
            shown, inside = drawn.draw(flags) > 0.5, drawn.mask & view.inside
            for kind, pixels in enumerate((inside & ~shown, inside & shown)):
                seen, expected = ((image * pixels).sum(dim=(2, 3)) for image in (view.image, drawn.image))
                enough = pixels.sum(dim=(1, 2, 3)) >= FEWEST
                ratios[kind].append((seen / expected.clamp_min(1e-3))[enough])
        for kind, rows in enumerate((~is_eye, is_eye)):
            found = torch.cat(ratios[kind])
            if len(found):
                part.mean_albedo[rows] *= found.median(dim=0).values.clamp(*GAINS)

    def _of_landmarks(self, windows: Windows) -> Coefficients:
        count, like = len(windows.image), windows.landmarks
        expected = windows.expected.clamp(*self.bounds) if self.bounds else windows.expected
        start = replace(mean_coefficients(self.person, count), expression=expected)
        deviation = torch.full((self.person.expression_size,), DEVIATION)
        deviation[list(self.blinks)] = LID_DEVIATION
        problem = LandmarkProblem(
            mean=start,
            target=windows.landmarks,
            intrinsics=windows.intrinsics,
            camera="perspective",
            noise=LandmarkNoise.even(NOISE).to(like),
            doubt=like.new_ones((count, LANDMARKS)),
            deviation=deviation,
            expression_bounds=self.bounds,
        )
        angles, translation = rigid_pose(self.person, start, windows.landmarks, windows.intrinsics)
        posed = replace(start, angles=angles, translation=translation)
        return fit_landmarks(self.person, problem, posed, self._contour, ROUNDS)

    def _light(self, windows: Windows, faces: Coefficients) -> Tensor:
        """(B, 27) read off the skin."""
        factor = LIGHT_SIZE / windows.image.shape[-1]
        image = torch.nn.functional.interpolate(windows.image, size=(LIGHT_SIZE, LIGHT_SIZE), mode="area")
        intrinsics = windows.intrinsics * windows.intrinsics.new_tensor([factor, factor, 1.0]).view(3, 1)
        return fit_illumination(self._renderer(faces, intrinsics), image, self.person.regions["skin"])

    def _lids(self, windows: Windows, faces: Coefficients) -> Tensor:
        """(B, E) the expression with each eye as far shut as its pixels say.

        Landmarks of shut eyes lie too far apart. A rasterized lid has no gradient, so openings are tried and drawn,
        and the least of their errors is found between them by a parabola.
        """
        expression = faces.expression
        for column in self.blinks:
            view = self._view(windows, faces, column)
            trials = [self._shut(faces.expression, column, opening.expand(len(expression))) for opening in OPENINGS]
            errors = [self._eye_error(view, replace(faces, expression=trial)) for trial in trials]
            away = (OPENINGS - faces.expression[:, column, None]) / LID_DEVIATION
            opening = least(torch.stack(errors, dim=1) / self._eye_noise + 0.5 * away.square())
            expression = self._shut(expression, column, opening)
        return expression

    def _view(
        self, windows: Windows, faces: Coefficients, column: int, aside: tuple[float, float] | None = None
    ) -> EyeView:
        """The eye that a blink shuts, by default where `learn_eyes` has found it."""
        shape, rotation = self.person.shape(faces.identity, faces.expression), euler_to_rotation(faces.angles)
        posed = pose_and_project(shape, rotation, faces.translation, windows.intrinsics)[1]
        marks, first = self.person.landmarks(posed[..., :2]), self.blinks[column]
        shift = marks.new_tensor(self._aside[column] if aside is None else aside)
        return eye_view(windows, marks[:, first], marks[:, first + 3], shift)

    def _eye_error(self, view: EyeView, faces: Coefficients) -> Tensor:
        """(B,) mean colour error round an eye."""
        drawn = self._eyes(faces, view.intrinsics)
        weight = (drawn.mask & view.inside)[:, 0].float()
        distance = (drawn.image - view.image).norm(dim=1) * weight
        return distance.sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1)

    def _shut(self, expression: Tensor, column: int, opening: Tensor) -> Tensor:
        """(B, E) with (B,) weights of a blink. What else moves these lids leaves the more room, or they would cross."""
        changed = expression.clone()
        changed[:, column] = opening
        changed[:, self._also[column]] *= 1 - opening[:, None]
        return changed

    def _round_eyes(self) -> np.ndarray:
        """Vertices within reach of the middle of an eye."""
        points = self.person.mean_shape
        marks = points[self.person.landmark_indices]
        near = torch.zeros(len(points), dtype=torch.bool)
        for first in BLINKS.values():
            middle, width = (marks[first] + marks[first + 3]) / 2, (marks[first] - marks[first + 3]).norm()
            near |= (points - middle).norm(dim=-1) < EYE_REACH * width
        return near.nonzero()[:, 0].numpy()


def least(energy: Tensor) -> Tensor:
    """Where between `OPENINGS` the least of (B, G) energies lies, by a parabola through the least three: (B,).

    >>> least((OPENINGS - 0.33).square()[None]).double().round(decimals=3).tolist()
    [0.33]
    """
    best = energy.argmin(dim=1, keepdim=True)
    middle = best.clamp(1, len(OPENINGS) - 2)
    before, here, after = (energy.gather(1, middle + step)[:, 0] for step in (-1, 0, 1))
    curve = before - 2 * here + after
    offset = torch.where(curve > 1e-9, (before - after) / (2 * curve.clamp_min(1e-9)), best[:, 0] - middle[:, 0])
    step = OPENINGS[1] - OPENINGS[0]
    return (OPENINGS[middle[:, 0]] + step * offset.clamp(-1, 1)).clamp(0, 1)


def _centres(size: tuple[int, int]) -> Tensor:
    """(H, W, 2) x, y of the pixels' centres."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _sampled(image: Tensor, places: Tensor) -> Tensor:
    """(B, 3, S, S) at (B, H, W, 2) pixels: (B, 3, H, W)."""
    return torch.nn.functional.grid_sample(image, 2 * places / image.shape[-1] - 1, align_corners=False)
