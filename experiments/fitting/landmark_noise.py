"""How a detector's landmarks differ from a face model's: a bias that depends on yaw, and a full covariance.

Neighbours along a contour err together, so that one number a point makes a fit bend the face to the detector's errors.
The errors are measured on whole drawn heads of a development seed, as imperfect cameras see them. They are in the frame
of the upright face and in units of the landmarks' box, against the true face posed under the *default* camera. What an
unknown focal length does to the points is therefore part of them: the focal length is marginalised with the prior that
the heads were drawn with.

    python -m experiments.fitting.landmark_noise          # draws, detects, writes landmark_noise.npz; about ten minutes
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from renderers.coefficients import Coefficients
from renderers.io.npz_file import read_npz
from renderers.landmarks68 import MIRROR

if TYPE_CHECKING:
    from datamodules.preparation.landmarks import LandmarkDetector
    from renderers.face_models.linear import LinearModel

FILE = Path(__file__).with_name("landmark_noise.npz")
MEASURED = "dlib"  # the detector whose errors the file holds
SEED = 1001  # of the development heads; nothing is measured on them elsewhere
HEADS, VIEWS = 160, 3
SIZE = 320  # pixels of a drawn head
MAX_YAW = 40.0
ZOOM = (0.55, 0.75)  # the whole head is in the picture
LIGHT_CHANGE = 0.3
LOST = 0.06  # share of the box: a mean error above it is a face that was missed, and not noise
FLOOR = 1e-3  # share of the box; what is added to every deviation, so that no direction is trusted blindly


@dataclass(frozen=True)
class LandmarkNoise:
    """A detector's errors, in units of sqrt(w h) of the landmarks' box, x to the face's left and y down.

    Attributes:
        bias: (3, 68, 2) the mean error is its combination with 1, sin(yaw) and sin(yaw)^2.
        covariance: (136, 136) about that mean, x and y of each point in turn.
    """

    bias: Tensor
    covariance: Tensor

    @classmethod
    def even(cls, deviation: float) -> LandmarkNoise:
        """The same independent noise for all points, for a detector whose errors nobody has measured."""
        return cls(torch.zeros(3, 68, 2), deviation**2 * torch.eye(136))

    def to(self, like: Tensor) -> LandmarkNoise:
        """On the device and in the precision of `like`."""
        return LandmarkNoise(self.bias.to(like), self.covariance.to(like))

    def mean(self, yaw: Tensor) -> Tensor:
        """(B,) radians -> (B, 68, 2)"""
        return torch.einsum("bk,knc->bnc", features(yaw).to(self.bias), self.bias)


def features(yaw: Tensor) -> Tensor:
    """(B,) radians -> (B, 3), what the bias is linear in."""
    return torch.stack([torch.ones_like(yaw), yaw.sin(), yaw.sin().square()], dim=-1)


@cache
def measured_noise() -> LandmarkNoise:
    """What `landmark_noise.npz` holds of dlib."""
    arrays = read_npz(FILE)
    return LandmarkNoise(torch.from_numpy(arrays["bias"]), torch.from_numpy(arrays["covariance"]))


def upright(offsets: Tensor, roll: Tensor) -> Tensor:
    """(B, 68, 2) offsets in the image, turned as if the face had no roll (B,) radians."""
    cos, sin = roll.cos()[:, None], roll.sin()[:, None]
    x, y = offsets.unbind(-1)
    return torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1)


def noise_of(errors: Tensor, yaw: Tensor) -> LandmarkNoise:
    """Bias and covariance of errors (N, 68, 2) at yaws (N,) radians; every face counts with its mirror image."""
    mirrored = errors[:, MIRROR] * errors.new_tensor([-1.0, 1.0])
    both, angles = torch.cat([errors, mirrored]).flatten(1).double(), torch.cat([yaw, -yaw]).double()
    design = features(angles)
    bias = torch.linalg.lstsq(design, both).solution
    left = both - design @ bias
    covariance = left.T @ left / (len(left) - 1) + FLOOR**2 * torch.eye(136, dtype=torch.float64)
    return LandmarkNoise(bias.unflatten(1, (68, 2)).float(), covariance.float())


@torch.no_grad()
def measure_errors(model: LinearModel, detector: LandmarkDetector, heads: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw heads, detect, compare: errors (N, 68, 2) of the faces that were found, and yaws (N,) in radians."""
    from datamodules.camera_effects import CameraEffects
    from datamodules.synthesis.people import HeadSettings
    from datamodules.synthesis.scenes import SceneSettings
    from datamodules.synthetic_heads import SyntheticHeads
    from renderers.camera import euler_to_rotation, project, transform

    settings = SceneSettings(views=VIEWS, max_yaw=MAX_YAW, light_change=LIGHT_CHANGE, heads=HeadSettings(zoom=ZOOM))
    drawn, effects = SyntheticHeads(model, "val", heads, SIZE, seed, settings), CameraEffects()
    errors, yaws = [], []
    for head in range(heads):
        batch = drawn[head]
        assert batch.truth is not None
        faces = model.layout().split(batch.truth.coefficients)
        shape = model.shape(faces.identity, faces.expression)
        seen = project(transform(shape, euler_to_rotation(faces.angles), faces.translation), batch.intrinsics)
        expected, angles = under_default_camera(model, faces, seen)
        with torch.random.fork_rng():
            torch.manual_seed(head)
            pictures = (effects(batch).image.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        for view, picture in enumerate(pictures):
            found = detector.detect(picture)
            if not found:
                continue
            points = torch.from_numpy(max(found, key=lambda face: face.area).landmarks).float()
            box = (points.amax(dim=0) - points.amin(dim=0)).prod().sqrt()
            error = upright(((points - expected[view]) / box)[None], angles[view : view + 1, 2])[0]
            if float(error.norm(dim=-1).mean()) < LOST:
                errors.append(error)
                yaws.append(angles[view, 1])
    return torch.stack(errors), torch.stack(yaws)


def under_default_camera(model: LinearModel, faces: Coefficients, vertices_image: Tensor) -> tuple[Tensor, Tensor]:
    """True faces posed under the default camera, to lie where they are seen: landmarks (B, 68, 2) and angles (B, 3).

    Args:
        model: of the faces.
        faces: their `Coefficients`.
        vertices_image: (B, V, 3) where the true camera sees them, pixels of `SIZE`.
    """
    from experiments.fitting.landmark_fitting import pose_of_points, project_with_jacobian
    from renderers.camera import default_intrinsics
    from renderers.jaw_contour import contour_table, gather_vertices, visible_landmarks

    rows = visible_landmarks(contour_table(model), model.landmark_indices, vertices_image, faces.angles)
    seen = gather_vertices(vertices_image, rows)[..., :2].double()
    points = gather_vertices(model.shape(faces.identity, faces.expression), rows).double()
    intrinsics = default_intrinsics(SIZE)[None].expand(len(seen), 3, 3).double()
    pose = pose_of_points(points, seen, intrinsics)
    return project_with_jacobian(points, pose, intrinsics)[0].float(), pose[:, :3].float()


def main() -> None:
    """Measures dlib on the default model, and writes the file."""
    from datamodules.preparation.landmarks import best_detector
    from renderers.face_models.default.model import load_default
    from renderers.io.atomic_file import written_atomically

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=HEADS)
    args = parser.parse_args()
    errors, yaws = measure_errors(load_default(), best_detector(MEASURED), args.heads, SEED)
    noise = noise_of(errors, yaws)
    with written_atomically(FILE) as temporary:
        np.savez(temporary, bias=noise.bias.numpy(), covariance=noise.covariance.numpy())
    deviation = 100 * float(noise.covariance.diagonal().mean().sqrt())
    print(f"{FILE}: {len(errors)} faces, deviation {deviation:.2f} % of the box")


if __name__ == "__main__":
    main()
