"""Cameras: Euler angles, rigid motion, perspective and scaled orthographic projection.

Model space has x right, y up, z towards the viewer; the camera stands on +z at distance 10 dm and looks to -z. A posed
point is x_cam = R x + t. The *camera-centred* frame has its origin in the camera, x right, y down, z forward:
c = D (x_cam - o) with D = diag(1, -1, -1) and o = (0, 0, 10), so c's z is the positive depth.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from renderers.constants import constant
from renderers.kernels.on_gpu import on_gpu

Camera = Literal["perspective", "orthographic"]

CAMERA_DISTANCE = 10.0  # decimetres
REFERENCE_SIZE = 224
REFERENCE_FOCAL = 1015.0  # pixels, for an image of REFERENCE_SIZE
NEAR = 1e-3  # decimetres; nothing nearer than this is drawn


def euler_to_rotation(angles: Tensor) -> Tensor:
    """Rotation matrices R = Rz Ry Rx for column vectors.

    Args:
        angles: (..., 3) rotations about x, y, z in radians.

    Returns:
        (..., 3, 3)

    >>> quarter_turn = euler_to_rotation(torch.tensor([0.0, torch.pi / 2, 0.0]))  # about y: z becomes x
    >>> (quarter_turn @ torch.tensor([0.0, 0.0, 1.0])).round().int().tolist()
    [1, 0, 0]
    """
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    entries = [
        cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx,
        sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx,
        -sy, cy * sx, cy * cx,
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def rotation_to_euler(rotation: Tensor) -> Tensor:
    """Inverse of `euler_to_rotation` for |yaw| < pi/2.

    Args:
        rotation: (..., 3, 3).

    Returns:
        (..., 3) angles about x, y, z in radians.
    """
    pitch = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    yaw = torch.asin((-rotation[..., 2, 0]).clamp(-1, 1))
    roll = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.stack([pitch, yaw, roll], dim=-1)


def transform(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """R x + t for (..., N, 3) points, (..., 3, 3) rotations and (..., 3) translations; decimetres."""
    return points @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def to_camera_centred(posed: Tensor) -> Tensor:
    """Posed points x_cam (..., 3) -> camera-centred c = (x, -y, 10 - z); the map is D (x_cam - o)."""
    x, y, z = posed.unbind(-1)
    return torch.stack([x, -y, CAMERA_DISTANCE - z], dim=-1)


def project(posed: Tensor, intrinsics: Tensor) -> Tensor:
    """Perspective projection of posed points.

    Args:
        posed: (B, N, 3) x_cam in decimetres.
        intrinsics: (B, 3, 3) pixel intrinsics (zero skew).

    Returns:
        (B, N, 3): x, y in pixels (origin at the image's top-left corner) and the positive depth in decimetres.
        A point at or behind the camera keeps its depth <= 0 and is placed as if it stood at `NEAR`.

    >>> project(torch.zeros(1, 1, 3), default_intrinsics(224)[None]).tolist()  # the origin: the middle, 10 dm away
    [[[112.0, 112.0, 10.0]]]
    """
    depth = CAMERA_DISTANCE - posed[..., 2:]
    # y points down in the image.
    focal = torch.stack([intrinsics[..., 0, 0], -intrinsics[..., 1, 1]], dim=-1).unsqueeze(-2)
    principal = intrinsics[..., :2, 2].unsqueeze(-2)
    pixels = torch.addcmul(principal, focal, posed[..., :2] / depth.clamp_min(NEAR))
    return torch.cat([pixels, depth], dim=-1)


@on_gpu("renderers.kernels.camera")
def pose_and_project(
    points: Tensor, rotation: Tensor, translation: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    """Poses (B, N, 3) points with `transform`, projects them with `project`, and returns the results of both."""
    posed = transform(points, rotation, translation)
    return posed, project(posed, intrinsics)


def project_orthographic(posed: Tensor, translation: Tensor, intrinsics: Tensor) -> Tensor:
    """Scaled orthographic projection: the whole face is drawn at the scale of its origin (finegrained, equation (4)).

    The scale f is the focal length over the origin's depth, 10 - t_z: for t_z = 0 the fixed one of the paper.

    Args:
        posed: (B, N, 3) x_cam = R x + t in decimetres.
        translation: (B, 3) t in decimetres.
        intrinsics: (B, 3, 3) pixel intrinsics (zero skew).

    Returns:
        (B, N, 3): x, y in pixels (origin at the image's top-left corner) and the positive depth in decimetres, as
        `project` gives it. A face at or behind the camera is scaled as if it stood at `NEAR`.
    """
    centred = to_camera_centred(posed)
    origin_depth = (CAMERA_DISTANCE - translation[..., None, 2:]).clamp_min(NEAR)
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1).unsqueeze(-2)
    principal = intrinsics[..., :2, 2].unsqueeze(-2)
    return torch.cat([focal / origin_depth * centred[..., :2] + principal, centred[..., 2:]], dim=-1)


def project_by(camera: Camera, posed: Tensor, translation: Tensor, intrinsics: Tensor) -> Tensor:
    """`project_orthographic` or `project`."""
    if camera == "orthographic":
        return project_orthographic(posed, translation, intrinsics)
    return project(posed, intrinsics)


def projection_matrix(camera: Camera, rotation: Tensor, translation: Tensor, intrinsics: Tensor) -> Tensor:
    """The same projection as one matrix from model space, in front of the camera.

    Args:
        camera: the orthographic one divides by the depth of a face's origin.
        rotation: (B, 3, 3).
        translation: (B, 3) decimetres.
        intrinsics: (B, 3, 3) pixels.

    Returns:
        (B, 3, 4) P: (x w, y w, w) = P (X, 1) with X in decimetres and x, y in pixels.
    """
    flip = constant((1.0, -1.0, -1.0), rotation)
    origin = constant((0.0, 0.0, CAMERA_DISTANCE), rotation)
    centred = flip.unsqueeze(-1) * torch.cat([rotation, (translation - origin).unsqueeze(-1)], dim=-1)
    if camera == "orthographic":
        centred[..., 2, :3] = 0
    return intrinsics @ centred


def default_intrinsics(size: int, device: torch.device | str = "cpu") -> Tensor:
    """(3, 3) intrinsics of the default camera, for square images of `size` pixels: focal 1015 at 224, centred."""
    focal = REFERENCE_FOCAL * size / REFERENCE_SIZE
    centre = size / 2
    return torch.tensor([[focal, 0.0, centre], [0.0, focal, centre], [0.0, 0.0, 1.0]], device=device)


def rays(points: Tensor, intrinsics: Tensor) -> Tensor:
    """K^-1 p: the camera-centred directions of pixels, scaled to z = 1.

    Args:
        points: (P, ..., 2) pixels.
        intrinsics: (P, 3, 3), zero skew.

    Returns:
        (P, ..., 3)
    """
    per_view = (len(intrinsics),) + (1,) * (points.dim() - 2) + (2,)
    focal = torch.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], dim=-1).view(per_view)
    principal = intrinsics[:, :2, 2].view(per_view)
    return functional.pad((points - principal) / focal, (0, 1), value=1.0)


def zoomed(intrinsics: Tensor, scale: Tensor) -> Tensor:
    """Intrinsics with another focal length (f of specular, equation 3).

    Args:
        intrinsics: (B, 3, 3) pixels.
        scale: (B, 1) logarithm of what the focal length is multiplied by.
    """
    focal, factor = intrinsics.clone(), scale.exp()[:, 0]
    focal[:, 0, 0] *= factor
    focal[:, 1, 1] *= factor
    return focal


def relative_pose(
    rotation_target: Tensor, translation_target: Tensor, rotation_source: Tensor, translation_source: Tensor
) -> tuple[Tensor, Tensor]:
    """The motion that takes target-view camera-centred points to the source view's: c_s = R_c c_t + t_c.

    With x_cam = R x + t, R_rel = R_s R_t^T and t_rel = t_s - R_rel t_t; between the camera-centred frames
    c = D (x_cam - o) that becomes R_c = D R_rel D and t_c = D (R_rel o + t_rel - o). MGCNet, section 3.2 (whose printed
    formula belongs to another convention).

    Args:
        rotation_target: (..., 3, 3).
        translation_target: (..., 3) decimetres.
        rotation_source: (..., 3, 3).
        translation_source: (..., 3) decimetres.

    Returns:
        R_c (..., 3, 3) and t_c (..., 3) in decimetres.
    """
    flip = constant((1.0, -1.0, -1.0), rotation_target)
    origin = constant((0.0, 0.0, CAMERA_DISTANCE), rotation_target)
    relative = rotation_source @ rotation_target.transpose(-1, -2)
    shift = translation_source - (relative @ translation_target.unsqueeze(-1)).squeeze(-1)
    rotation = flip.unsqueeze(-1) * relative * flip
    translation = flip * ((relative @ origin) + shift - origin)
    return rotation, translation
