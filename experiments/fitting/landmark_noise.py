"""Measures how dlib's landmarks differ from a face model's: `datamodules.synthesis.landmark_noise`.

Neighbours along a contour err together, so that one number a point makes a fit bend the face to the detector's errors.
The errors are measured on whole drawn heads of a development seed, as imperfect cameras see them. They are in the frame
of the upright face and in units of the landmarks' box, against the true face posed under the *default* camera. What an
unknown focal length does to the points is therefore part of them: the focal length is marginalised with the prior that
the heads were drawn with.

    python -m experiments.fitting.landmark_noise          # draws, detects, writes landmark_noise.npz; about ten minutes
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from datamodules.synthesis.landmark_noise import FILE, noise_of, upright
from renderers.coefficients import Coefficients

if TYPE_CHECKING:
    from datamodules.preparation.landmarks import LandmarkDetector
    from renderers.face_models.linear import LinearModel

MEASURED = "dlib"  # the detector whose errors the file holds
SEED = 1001  # of the development heads; nothing is measured on them elsewhere
HEADS, VIEWS = 160, 3
SIZE = 320  # pixels of a drawn head
MAX_YAW = 40.0
ZOOM = (0.55, 0.75)  # the whole head is in the picture
LIGHT_CHANGE = 0.3
LOST = 0.06  # share of the box: a mean error above it is a face that was missed, and not noise


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
