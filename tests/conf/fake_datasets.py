"""Tiny copies of every data set in its owner's layout, with one public photograph in the place of people's."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import skimage.data
import trimesh
from PIL import Image

SIDE = 128
BND_VERTICES = np.arange(83) * 5 % 162  # of BU-3DFE's scans: the vertices that their landmarks are


@dataclass(frozen=True, eq=False)
class FakeFace:
    """An (SIDE, SIDE, 3) uint8 photograph and its 68 points (68, 2) in continuous pixels."""

    image: np.ndarray
    landmarks: np.ndarray


@cache
def fake_face() -> FakeFace:
    """The astronaut of scikit-image, with the points that dlib finds."""
    from datamodules.preparation.landmarks import DlibDetector

    image = cv2.resize(skimage.data.astronaut()[20:276, 90:346], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    (face,) = DlibDetector().detect(image)
    return FakeFace(image, face.landmarks)


def save_photo(path: Path, number: int = 0, mirrored: bool = False) -> Path:
    """The photograph, a little brighter for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = fake_face().image[:, :: -1 if mirrored else 1].astype(int) + 2 * number
    options = {"quality": 92} if path.suffix == ".jpg" else {}
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path, **options)
    return path


def save_text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def head_scan() -> trimesh.Trimesh:
    """An ellipsoid of a head's size in millimetres."""
    mesh = trimesh.creation.icosphere(2, 1.0)
    mesh.apply_scale([75, 100, 90])
    return mesh


def save_obj(path: Path) -> Path:
    mesh = head_scan()
    vertices = [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    faces = [f"f {a}/1 {b}/1 {c}/1" for a, b, c in mesh.faces + 1]
    return save_text(path, "mtllib ../../elsewhere.mtl", *vertices, "vt 0 0", *faces)


def save_torch7(path: Path, points: np.ndarray) -> Path:
    """A tensor as torch7 writes it: tag, index, version, class, sizes, strides, offset, then its storage."""

    def text(word: bytes) -> bytes:
        return struct.pack("<i", len(word)) + word

    head = struct.pack("<ii", 4, 1) + text(b"V 1") + text(b"torch.FloatTensor")
    shape = struct.pack("<iqqqqq", 2, *points.shape, points.shape[1], 1, 1)
    store = struct.pack("<ii", 4, 2) + text(b"V 1") + text(b"torch.FloatStorage") + struct.pack("<q", points.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + shape + store + points.astype("<f4").tobytes())
    return path


def write_celeba(root: Path) -> Path:
    """Six photographs of four people: three to train on, one to validate, two to test."""
    names = [f"{number:06d}.jpg" for number in (1, 2, 3, 162771, 182638, 182639)]
    for number, name in enumerate(names):
        save_photo(root / "img_align_celeba" / name, number)
    save_text(root / "list_eval_partition.txt", *(f"{n} {s}" for n, s in zip(names, (0, 0, 0, 1, 2, 2), strict=True)))
    save_text(root / "identity_CelebA.txt", *(f"{n} {p}" for n, p in zip(names, (7, 7, 8, 9, 5, 5), strict=True)))
    return root


def write_celebamask_hq(root: Path) -> Path:
    """Three photographs with the mask of skin on the left half, and on the first one hair over its top quarter."""
    rows = ((0, 119613), (1, 162771), (2, 182638))
    half = np.zeros((SIDE // 2, SIDE // 2), np.uint8)
    half[:, : SIDE // 4] = 255
    for number, _ in rows:
        save_photo(root / "CelebA-HQ-img" / f"{number}.jpg", number)
        masks = root / "CelebAMask-HQ-mask-anno" / "0"
        masks.mkdir(parents=True, exist_ok=True)
        Image.fromarray(half).save(masks / f"{number:05d}_skin.png")
    hair = np.zeros_like(half)
    hair[: SIDE // 8] = 255
    Image.fromarray(hair).save(root / "CelebAMask-HQ-mask-anno" / "0" / "00000_hair.png")
    lines = [f"{index:<8}{original - 1:<10}{original:06d}.jpg" for index, original in rows]
    save_text(root / "CelebA-HQ-to-CelebA-mapping.txt", "idx     orig_idx  orig_file", *lines)
    return root


def write_w300lp(root: Path) -> Path:
    """Two faces in three views each and one mirrored view, whose yaws are 0, 20 and 40 degrees."""
    points = fake_face().landmarks
    for part, face in (("AFW", "AFW_1_1"), ("LFPW", "LFPW_image_7")):
        for view in range(3):
            path = save_photo(root / "300W_LP" / part / f"{face}_{view}.jpg", view)
            pose = np.array([[0.1, np.radians(20 * view), 0, 60, 60, 0, 1e-3]])
            # 300W's own outline of the jaw, which the file of points corrects; MATLAB counts from 1.
            scipy.io.savemat(path.with_suffix(".mat"), {"pt2d": points.T + 4.5, "Pose_Para": pose})
            file = root / "300W_LP" / "landmarks" / part / f"{path.stem}_pts.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(file, {"pts_2d": points + 4.5, "pts_3d": points + 0.5})
    path = save_photo(root / "300W_LP" / "AFW_Flip" / "AFW_1_1_0.jpg", 4, mirrored=True)
    from renderers.landmarks68 import MIRROR

    flipped = np.stack([SIDE - points[MIRROR, 0], points[MIRROR, 1]])
    scipy.io.savemat(path.with_suffix(".mat"), {"pt2d": flipped + 0.5, "Pose_Para": np.zeros((1, 7))})
    return root


def write_aflw2000(root: Path) -> Path:
    """Three photographs at 0, 45 and -75 degrees of yaw."""
    points = fake_face().landmarks
    for number, yaw in enumerate((0, 45, -75)):
        path = save_photo(root / "AFLW2000" / f"image{number + 2:05d}.jpg", number)
        points_3d = np.column_stack([points + 0.5, np.arange(68.0)]).T
        pose = np.array([[0.1, np.radians(yaw), -0.05, 60, 60, 0, 1e-3]])
        arrays = {"pt3d_68": points_3d, "Pose_Para": pose, "roi": np.array([[11, 12, 101, 112]], np.uint8)}
        scipy.io.savemat(path.with_suffix(".mat"), arrays)
    return root


def write_lfw(root: Path) -> Path:
    """Three people of two photographs each: one to train on, one to test, one in neither list."""
    for number, person in enumerate(("Ada_Lovelace", "Ben_Okri", "Cleo_Laine")):
        for shot in (1, 2):
            save_photo(root / "lfw" / person / f"{person}_{shot:04d}.jpg", 2 * number + shot)
    save_text(root / "peopleDevTrain.txt", "1", "Ada_Lovelace\t2")
    save_text(root / "peopleDevTest.txt", "1", "Ben_Okri\t2")
    return root


def write_ls3dw(root: Path) -> Path:
    """Menpo-3D with .t7 points, frames of a video with .mat ones, and the balanced set for testing."""
    points = fake_face().landmarks - 0.5
    for number, name in enumerate(("Menpo-3D/1", "Menpo-3D/2", "new_dataset/1")):
        save_torch7(save_photo(root / f"{name}.jpg", number).with_suffix(".t7"), points)
    for number in (1, 2):
        path = save_photo(root / "300VW-3D" / "Trainset" / "001" / f"{number:04d}.png", number)
        scipy.io.savemat(path.with_suffix(".mat"), {"pt3d_68": np.column_stack([points, points[:, 0]])})
    return root


def write_multi_pie(root: Path) -> Path:
    """Two people, one recording and flash, seen by five cameras, one of which looks down."""
    for person in ("001", "002"):
        for number, camera in enumerate(("14_0", "05_1", "05_0", "04_1", "08_1")):
            name = f"{person}_01_01_{camera.replace('_', '')}_06.png"
            save_photo(root / "data" / "session01" / "multiview" / person / "01" / camera / name, number)
    return root


def write_micc(root: Path) -> Path:
    """Two people with a scan each; the second one has no outdoor clip."""
    for number, clips in ((1, ("Indoor-Cooperative", "PTZ-Indoor", "PTZ-Outdoor")), (2, ("Indoor-Cooperative",))):
        person = root / f"subject_{number:02d}"
        save_obj(person / "Model" / "frontal1" / "obj" / "110920150452.obj")
        for clip in clips:
            for frame in (1, 2):
                save_photo(person / "Videos" / clip / f"frame{frame:04d}.jpg", frame + number)
    return root


def write_facescape(root: Path) -> Path:
    """One person with two expressions of three views, the middle one of which is not calibrated."""
    for expression in ("1_neutral", "16_grin"):
        folder = root / "122" / expression
        settings: dict[str, object] = {}
        for view in range(3):
            save_photo(folder / f"{view}.jpg", view)
            settings |= {f"{view}_K": np.eye(3).tolist(), f"{view}_Rt": np.eye(3, 4).tolist()}
            settings |= {f"{view}_distortion": [0.0] * 5, f"{view}_valid": view != 1}
            settings |= {f"{view}_width": SIDE, f"{view}_height": SIDE, f"{view}_sn": "0a"}
        (folder / "params.json").write_text(json.dumps(settings))
        save_obj(root / "models_reg" / f"122_{expression}.obj")
    return root


def write_bu3dfe(root: Path) -> Path:
    """A neutral and a happy scan of one person, as VRML, with photographs and 83 points."""
    mesh = head_scan()
    points = ",\n".join(f"{x} {y} {z}" for x, y, z in mesh.vertices)
    indices = ",\n".join(f"{a}, {b}, {c}, -1" for a, b, c in mesh.faces)
    for number, stem in enumerate(("F0001_NE00WH", "F0001_HA04WH")):
        folder = root / "F0001"
        save_photo(folder / f"{stem}_F2D.bmp", number)
        save_text(
            folder / f"{stem}_F3D.wrl",
            "#VRML V2.0 utf8",
            "Shape { geometry IndexedFaceSet { coord Coordinate { point [",
            f"{points} ] }} texCoord TextureCoordinate {{ point [ 0 0, 1 1 ] }}",
            f"coordIndex [ {indices} ] texCoordIndex [ 0, 1, 0, -1 ] }} }}",
        )
        # A line is the number of a vertex, from 0, and its place.
        marked = zip(BND_VERTICES, mesh.vertices[BND_VERTICES], strict=True)
        save_text(folder / f"{stem}_F3D.bnd", *(f"{vertex}\t\t{x}\t{y}\t{z}" for vertex, (x, y, z) in marked))
    return root


def range_image_lines(rows: int = 12, columns: int = 10) -> list[str]:
    """A slanted plane at 2 mm a pixel whose first column has no depth."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    flags = (x > 0).astype(int)
    planes = [np.where(flags > 0, plane, -999999) for plane in (2 * x, -2 * y, 0.5 * x - 1500)]
    lines = [" ".join(f"{value:.6f}" for value in plane.ravel()) for plane in planes]
    return [f"{rows} rows", f"{columns} columns", "pixels (flag X Y Z):", " ".join(map(str, flags.ravel())), *lines]


def write_frgc(root: Path) -> Path:
    """Two range images of one person, one of them packed, each with its photograph."""
    text = "".join(f"{line}\n" for line in range_image_lines()).encode()
    folder = root / "nd1" / "Fall2003range"
    save_photo(folder / "02463d453.ppm", 0)
    save_photo(folder / "02463d547.jpg", 1)
    (folder / "02463d452.abs").write_bytes(text)
    (folder / "02463d546.abs.gz").write_bytes(gzip.compress(text))
    return root


def picked_points_lines(points: np.ndarray) -> list[str]:
    """A file of MeshLab's PickPoints."""
    rows = [
        f' <point x="{x}" y="{y}" active="1" z="{z}" name="{number}"/>' for number, (x, y, z) in enumerate(points, 1)
    ]
    return ["<!DOCTYPE PickedPoints>", "<PickedPoints>", " <DocumentData/>", *rows, "</PickedPoints>"]


def write_now(root: Path) -> Path:
    """Two people, three photographs in two challenges."""
    rows = ("P1/multiview_neutral/IMG_1.jpg", "P1/selfie/IMG_2.jpg", "P2/multiview_neutral/IMG_3.jpg")
    for number, row in enumerate(rows):
        save_photo(root / "NoW_Dataset" / "final_release_version" / "iphone_pictures" / row, number)
    save_text(root / "imagepathsvalidation.txt", *rows)
    for person in ("P1", "P2"):
        save_obj(root / "scans" / person / "scan.obj")
        save_text(root / "scans_lmks_onlypp" / person / "scan.pp", *picked_points_lines(head_scan().vertices[:7]))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "celeba": write_celeba,
    "celebamask-hq": write_celebamask_hq,
    "300w-lp": write_w300lp,
    "aflw2000": write_aflw2000,
    "lfw": write_lfw,
    "ls3d-w": write_ls3dw,
    "multi-pie": write_multi_pie,
    "micc": write_micc,
    "facescape": write_facescape,
    "bu3dfe": write_bu3dfe,
    "frgc": write_frgc,
    "now": write_now,
}
