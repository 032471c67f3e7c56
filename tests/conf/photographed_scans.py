"""Pictures of scans, for `evaluate --suite scans`: a textured scan from several sides, and heads of the face model.

python -m tests.conf.photographed_scans scan SCAN_FOLDER OUT     # SCAN_FOLDER/scan.obj with color.jpg; --yaws -60 0 60
python -m tests.conf.photographed_scans heads OUT --count 20     # held-out people of the default model
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from datamodules.preparation.landmarks import DlibDetector
from datamodules.synthetic import SceneSettings, sample_background, sample_scene
from experiments.commands.evaluate.scan_landmarks import find_scan_landmarks
from renderers.camera import CAMERA_DISTANCE, project
from renderers.coefficients import Coefficients
from renderers.face_models.linear import LinearModel
from renderers.face_models.load import load_face_model
from renderers.face_renderer import FaceRenderer
from renderers.illumination import AMBIENT, irradiance, spherical_harmonics_basis
from renderers.io.obj_file import read_obj
from renderers.raster import rasterize
from renderers.raster.interpolation import interpolate
from renderers.vertex_normals import VertexNormals

SIZE = 480  # pixels
DISTANCE = 12.0  # decimetres from the camera to the scan's middle
FOCAL = 0.4 * SIZE * DISTANCE  # pixels
OUTER_EYES = 88.0  # millimetres between the outer corners of a grown person's eyes, for scans without a unit
YAWS = (-40, -20, 0, 20, 40)
LIGHTS = {"front": (0.0, 0.2, 1.0), "left": (-0.9, 0.3, 0.6), "right": (0.9, 0.3, 0.6), "above": (0.0, 0.9, 0.5)}
HELD_OUT = 9000  # seed of the people; no setting of the project was chosen on them


def light(direction: tuple[float, float, float]) -> torch.Tensor:
    """(1, 27) a lamp and a dimmer fill, white."""
    basis = spherical_harmonics_basis(torch.nn.functional.normalize(torch.tensor(direction), dim=0))
    weights = torch.cat([torch.tensor([0.5 - AMBIENT]), 0.22 * basis[1:4], 0.05 * basis[4:]])
    return weights.repeat(3)[None]


def turned_scan(points: np.ndarray, yaw: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, N, 3) decimetres before the camera, and (1, N, 3) in the picture, of points (N, 3) as `draw_scan` turns
    them."""
    turned = points @ Rotation.from_euler("y", yaw, degrees=True).as_matrix().T
    posed = torch.from_numpy(turned).float()[None] + torch.tensor([0.0, 0.0, CAMERA_DISTANCE - DISTANCE])
    intrinsics = torch.tensor([[[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1.0]]])
    return posed, project(posed, intrinsics)


@torch.no_grad()
def draw_scan(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, yaw: float, lamp: torch.Tensor
) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 of a turned scan.

    Args:
        vertices: (V, 3) decimetres, the face's middle at the origin, looking to +z.
        faces: (F, 3).
        colors: (V, 3) of every vertex.
        yaw: degrees.
        lamp: (1, 27), see `light`.
    """
    posed, seen = turned_scan(vertices, yaw)
    triangles = torch.from_numpy(faces)
    fragments = rasterize(seen, triangles, (SIZE, SIZE))
    normals = VertexNormals(triangles, len(vertices))(posed)
    shaded = torch.from_numpy(colors).float()[None] * irradiance(normals, lamp)
    drawn = interpolate(fragments, triangles, shaded)[0]
    behind = torch.full_like(drawn, 0.6)
    picture = torch.where(fragments.mask, drawn, behind).clamp(0, 1)
    return (picture.permute(1, 2, 0) * 255).round().byte().numpy()


def textured(folder: Path, finer: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V, 3) vertices, (F, 3) faces and (V, 3) colors of `scan.obj` with its `color.jpg`.

    Every triangle is cut into four so many times, for vertices to hold the picture's colours.
    """
    mesh = read_obj(folder / "scan.obj")
    keys = np.stack([mesh.triangles.ravel(), mesh.corners.ravel()], axis=1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    both, faces = np.hstack([mesh.vertices[unique[:, 0]], mesh.uv[unique[:, 1]]]), inverse.reshape(-1, 3)
    for _ in range(finer):
        pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        edges, row = np.unique(pairs, axis=0, return_inverse=True)
        middle = len(both) + row.reshape(3, -1)
        a, b, c, (ab, bc, ca) = *faces.T, middle
        both = np.concatenate([both, both[edges].mean(axis=1)])
        cut = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = np.concatenate([np.stack(corners, axis=1) for corners in cut])
    picture = torch.from_numpy(np.asarray(Image.open(folder / "color.jpg").convert("RGB"), np.float32) / 255)
    grid = torch.from_numpy(both[:, 3:]).float() * torch.tensor([2.0, -2.0]) + torch.tensor([-1.0, 1.0])
    colors = torch.nn.functional.grid_sample(picture.permute(2, 0, 1)[None], grid[None, None], align_corners=False)
    return both[:, :3], faces, colors[0, :, 0].T.numpy()


def write_scan(folder: Path, out: Path, yaws: Sequence[int] = YAWS) -> None:
    """A person for every light: the scan from all yaws, scaled to `OUTER_EYES`, with its landmarks in each picture."""
    mesh = read_obj(folder / "scan.obj")
    landmarks = find_scan_landmarks(mesh.vertices, mesh.triangles, DlibDetector())
    corners = landmarks[36 - 17], landmarks[45 - 17]
    scale = OUTER_EYES / float(np.linalg.norm(corners[0] - corners[1]))
    middle = landmarks[30 - 17] - [0, 0, 60 / scale]
    marks = {f"yaw{yaw:+03d}": turned_scan((landmarks - middle) * scale / 100, yaw)[1][0, :, :2] for yaw in yaws}
    vertices, faces, colors = textured(folder)
    for name, direction in LIGHTS.items():
        pictures = {
            f"yaw{yaw:+03d}": draw_scan((vertices - middle) * scale / 100, faces, colors, yaw, light(direction))
            for yaw in yaws
        }
        poses = {stem: (0.0, float(yaw), 0.0) for stem, yaw in zip(pictures, yaws, strict=True)}
        write_person(out / name, (mesh.vertices - middle) * scale, mesh.triangles, pictures, poses)
        for stem, points in marks.items():
            write_points(out / name / f"{stem}.pts", points.numpy())


def write_points(path: Path, points: np.ndarray) -> None:
    """An iBUG `.pts` file of (N, 2) continuous pixels."""
    lines = ["version: 1", f"n_points: {len(points)}", "{", *(f"{x:.4f} {y:.4f}" for x, y in points + 0.5), "}"]
    path.write_text("\n".join(lines) + "\n")


def write_person(
    folder: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    pictures: dict[str, np.ndarray],
    poses: dict[str, tuple[float, float, float]],
) -> None:
    """One `PERSON/`: photographs by name, the scan in millimetres, and how it stands in each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{stem}.png")
    lines = [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices] + [f"f {a} {b} {c}" for a, b, c in faces + 1]
    (folder / "scan.obj").write_text("\n".join(lines) + "\n")
    turns = [f"{stem}.png {pitch} {yaw} {roll}" for stem, (pitch, yaw, roll) in poses.items()]
    (folder / "poses.txt").write_text("\n".join(turns) + "\n")


@torch.no_grad()
def write_heads(out: Path, model: LinearModel, count: int, views: int = 3, size: int = 320) -> None:
    """Held-out people of a face model in `views` photographs each; their scans are the model's own mesh."""
    settings = SceneSettings(views=views, max_yaw=40.0)
    for number in range(count):
        generator = np.random.default_rng([HELD_OUT, number])
        scene = sample_scene(model, settings, generator)
        person = Coefficients.from_named({name: torch.from_numpy(value) for name, value in scene.items()})
        # As near as a hand's and as far as a room's camera, with room round the face.
        distance = torch.from_numpy(np.exp(generator.uniform(np.log(5), np.log(25), views))).float()
        person.translation[:, 2] = CAMERA_DISTANCE - distance
        focal = 0.36 * size * distance
        intrinsics = torch.tensor([[1, 0, size / 2], [0, 1, size / 2], [0, 0, 1.0]]).repeat(views, 1, 1)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        rendering = FaceRenderer(model, size)(person, intrinsics)
        behind = torch.stack([torch.from_numpy(sample_background(size, generator)) for _ in range(views)])
        drawn = torch.where(rendering.mask, rendering.image.clamp(0, 1), behind).permute(0, 2, 3, 1)
        pictures = {f"view{view}": (drawn[view] * 255).round().byte().numpy() for view in range(views)}
        turns = np.degrees(person.angles.numpy()).tolist()
        poses = {stem: (turn[0], turn[1], turn[2]) for stem, turn in zip(pictures, turns, strict=True)}
        neutral = model.shape(person.identity[:1], torch.zeros(1, model.expression_size))[0]
        write_person(out / f"head{number:03d}", 100 * neutral.double().numpy(), model.faces.numpy(), pictures, poses)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="kind", required=True)
    scan = parts.add_parser("scan")
    scan.add_argument("folder", type=Path)
    scan.add_argument("out", type=Path)
    scan.add_argument("--yaws", type=int, nargs="+", default=YAWS, help="degrees (default: -40 to 40)")
    heads = parts.add_parser("heads")
    heads.add_argument("out", type=Path)
    heads.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    if args.kind == "scan":
        write_scan(args.folder, args.out, args.yaws)
    else:
        model = load_face_model("default")
        assert isinstance(model, LinearModel)
        write_heads(args.out, model, args.count)


if __name__ == "__main__":
    main()
