"""A user's own people: photographs of each person, with a scan, or with marked points only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datamodules.datasets.listings import mismatch, pictures, read_rows, read_text, subfolders
from renderers.io.errors import UserError

TITLE = "people of one's own"
SCANS = ("scan.obj", "scan.ply")
LANDMARKS, POSES = "landmarks.txt", "poses.txt"
POINTS = (51, 68)  # of iBUG, without and with those of the jaw


@dataclass(frozen=True)
class OwnPerson:
    """One person's folder.

    Attributes:
        name: the folder's.
        images: photographs, in order of name.
        points: photograph -> its `.pts` file, where there is one.
        scan: of the neutral face in millimetres, where there is one.
        scan_landmarks: of the scan, where there are some.
        poses: photograph -> pitch, yaw and roll of the scan in it, degrees; empty where that is not known.
    """

    name: str
    images: tuple[Path, ...]
    points: dict[Path, Path]
    scan: Path | None
    scan_landmarks: Path | None
    poses: dict[Path, tuple[float, float, float]] = field(default_factory=dict)


def read_people(root: Path) -> list[OwnPerson]:
    """Every `PERSON/` of a folder, in order of name.

    A person's folder holds photographs. These files are optional, but a scan or a photograph with points is needed:
    `scan.obj` or `scan.ply`, a neutral face in millimetres; `landmarks.txt`, 7, 51 or 68 lines of x, y, z on the scan,
    without which the scan must look towards +z with y up; `IMAGE.pts` beside a photograph, its 68 points in iBUG's
    format, or the 51 without the jaw; `poses.txt`, lines "IMAGE.jpg PITCH YAW ROLL" that turn the scan, in degrees.

    Raises:
        UserError: no such folder, a person without anything to measure, or a pose of a photograph that is not there.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    people = [_person(folder) for folder in subfolders(root) if pictures(folder)]
    if not people:
        raise mismatch(root, TITLE, "PERSON/*.jpg with PERSON/scan.obj, scan.ply or *.pts")
    return people


def _person(folder: Path) -> OwnPerson:
    images = tuple(pictures(folder))
    points = {image: image.with_suffix(".pts") for image in images if image.with_suffix(".pts").is_file()}
    scan = next((folder / name for name in SCANS if (folder / name).is_file()), None)
    if scan is None and not points:
        raise UserError(f"{folder}: neither a {' nor a '.join(SCANS)}, nor a .pts beside a photograph")
    landmarks = folder / LANDMARKS
    return OwnPerson(
        folder.name, images, points, scan, landmarks if landmarks.is_file() else None, _poses(folder / POSES, images)
    )


def _poses(path: Path, images: tuple[Path, ...]) -> dict[Path, tuple[float, float, float]]:
    if not path.is_file():
        return {}
    named = {image.name: image for image in images}
    poses: dict[Path, tuple[float, float, float]] = {}
    for number, (name, *angles) in read_rows(path, 4):
        try:
            pitch, yaw, roll = (float(angle) for angle in angles)
            poses[named[name]] = pitch, yaw, roll
        except KeyError:
            raise UserError(f"{path}, line {number}: no photograph {name!r} lies beside it") from None
        except ValueError:
            raise UserError(f"{path}, line {number}: expected IMAGE PITCH YAW ROLL in degrees") from None
    return poses


def read_points(path: Path) -> np.ndarray:
    """(68, 2) or (51, 2) continuous pixels of an iBUG `.pts` file. The file's (1, 1) is the centre of the first pixel.

    Raises:
        UserError: no such file, another form, or another number of points.
    """
    _, opening, rest = read_text(path).partition("{")
    body, closing, _ = rest.partition("}")
    try:
        points = np.array([[float(word) for word in line.split()] for line in body.splitlines() if line.strip()])
    except ValueError:
        raise UserError(f"{path}: a line between its braces is not two numbers") from None
    if (
        not (opening and closing)
        or points.shape not in [(count, 2) for count in POINTS]
        or not np.isfinite(points).all()
    ):
        raise UserError(
            f"{path}: expected n_points: {' or '.join(map(str, POINTS))} and as many lines of x and y between braces"
        )
    return points - 0.5
