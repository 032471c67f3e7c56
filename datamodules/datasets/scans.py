"""3D scans of evaluation data sets: meshes, landmarks, and the subjects of a benchmark."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.datasets.listings import read_text
from datamodules.datasets.number_files import read_npy, read_number_rows
from renderers.io.errors import UserError

LARGEST = 2**29  # bytes of a scan, unpacked
LONGEST_EDGE = 10.0  # millimetres; a longer edge in a range image is a jump in depth, not a surface
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class ScanSubject:
    """One entry of a benchmark: photographs of a person, and the scan with which reconstructions are compared.

    Attributes:
        name: of the person, as the data set's owner writes it.
        images: photographs, in the owner's order.
        scan: file of the scan, None where the owner keeps it (a test set).
        scan_landmarks: file of the scan's landmarks, where there is one.
        group: the part of the benchmark that this belongs to: NoW's challenge, MICC's kind of clip, FaceScape's and
            BU-3DFE's expression, FRGC's season.
    """

    name: str
    images: tuple[Path, ...]
    scan: Path | None
    scan_landmarks: Path | None
    group: str


@dataclass(frozen=True, eq=False)
class Scan:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float64 in the file's own unit, which is the millimetre in all data sets read here.
        faces: (F, 3) int64.
    """

    vertices: np.ndarray
    faces: np.ndarray


def read_scan(path: Path) -> Scan:
    """A scan from an .obj, .ply, .wrl (VRML, BU-3DFE) or .abs / .abs.gz (range image, FRGC) file.

    No other file is opened, neither materials nor textures. The surface need not be manifold. Polygons become fans of
    triangles; triangles with a repeated corner are dropped.

    Raises:
        UserError: no such file, another format, too large, damaged, without a face, an index out of range, or
            coordinates that are not finite.
    """
    name = path.name.lower()
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    content = _content(path, packed=name.endswith(".gz"))
    name = name.removesuffix(".gz")
    try:
        if name.endswith(".obj"):
            vertices, faces = _obj(content)
        elif name.endswith(".ply"):
            vertices, faces = _ply(content)
        elif name.endswith(".wrl"):
            vertices, faces = _vrml(content)
        elif name.endswith(".abs"):
            vertices, faces = _range_image(content)
        else:
            raise UserError(f"{path}: not a scan in a known format (.obj, .ply, .wrl, .abs, .abs.gz)")
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not a scan of its format, or damaged ({str(error)[:120]})") from None
    return _checked(path, vertices, faces)


def _content(path: Path, packed: bool) -> bytes:
    """The file's bytes, unpacked; an error if there are more than `LARGEST`."""
    try:
        if packed:
            with gzip.open(path) as file:
                content = file.read(LARGEST + 1)
        else:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or f'damaged or cut short ({error})'}") from None
    except Exception as error:  # zlib.error, which is no OSError
        raise UserError(f"{path}: damaged ({error})") from None
    if len(content) > LARGEST:
        raise UserError(f"{path}: more than {LARGEST} bytes is too large for a scan")
    return content


def _checked(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Scan:
    if len(vertices) == 0 or len(faces) == 0:
        raise UserError(f"{path}: {len(vertices)} vertices and {len(faces)} faces, a scan has some of both")
    if not np.isfinite(vertices).all():
        raise UserError(f"{path}: it holds coordinates that are not finite")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path}: a face names vertex {faces.max()} of {len(vertices)}")
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    if not whole.any():
        raise UserError(f"{path}: every face has a corner twice")
    return Scan(np.ascontiguousarray(vertices, dtype=np.float64), np.ascontiguousarray(faces[whole], dtype=np.int64))


def _obj(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The `v` and `f` lines of a Wavefront file; indices count from 1, negative ones from the end."""
    points: list[bytes] = []
    polygons: dict[int, list[list[int]]] = {}
    for line in content.splitlines():
        if line.startswith(b"v "):
            points.append(b" ".join(line.split()[1:4]))
        elif line.startswith(b"f "):
            corners = [int(word.partition(b"/")[0]) for word in line.split()[1:]]
            if len(corners) < 3 or 0 in corners:
                raise ValueError(f"a face line {line[:40]!r}")
            corners = [corner - 1 if corner > 0 else len(points) + corner for corner in corners]
            polygons.setdefault(len(corners), []).append(corners)
    vertices = np.array(b" ".join(points).split(), dtype=np.float64).reshape(-1, 3)
    if len(vertices) != len(points):
        raise ValueError("a vertex line without three numbers")
    fans = [_fan(np.array(group)) for _, group in sorted(polygons.items())]
    return vertices, np.concatenate([np.zeros((0, 3), np.int64), *fans])


def _fan(polygons: np.ndarray) -> np.ndarray:
    """(P, N) polygons -> (P (N - 2), 3) triangles."""
    count = polygons.shape[1]
    corners = [polygons[:, [0, k, k + 1]] for k in range(1, count - 1)]
    return np.stack(corners, axis=1).reshape(-1, 3)


def _ply(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    import io

    import trimesh

    try:
        # A file object has no folder, so that nothing beside the scan can be opened.
        loaded = trimesh.load(io.BytesIO(content), file_type="ply", process=False)
    except Exception as error:  # the parser trips over damaged bytes in many ways
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not isinstance(loaded, trimesh.Trimesh):
        raise ValueError("it holds no triangles")
    return np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces, np.int64)


def _vrml(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The first `Coordinate { point [...] }` and `coordIndex [...]` of a VRML file; -1 ends a polygon."""
    text = content.decode("latin-1")
    points = re.search(r"\bCoordinate3?\s*\{\s*point\s*\[([^\]]*)\]", text)
    indices = re.search(r"\bcoordIndex\s*\[([^\]]*)\]", text)
    if points is None or indices is None:
        raise ValueError("no Coordinate points or no coordIndex")
    vertices = np.array(points[1].replace(",", " ").split(), dtype=np.float64).reshape(-1, 3)
    polygons: dict[int, list[list[int]]] = {}
    corners: list[int] = []
    for word in [*indices[1].replace(",", " ").split(), "-1"]:
        if word != "-1":
            corners.append(int(word))
        elif corners:
            if len(corners) >= 3:
                polygons.setdefault(len(corners), []).append(corners)
            corners = []
    fans = [_fan(np.array(group)) for _, group in sorted(polygons.items())]
    return vertices, np.concatenate([np.zeros((0, 3), np.int64), *fans])


def _range_image(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """FRGC's range image: rows, columns and a title line, then a line each of flags, X, Y and Z.

    Neighbouring valid pixels are joined by triangles, unless an edge is longer than `LONGEST_EDGE`. The triangles face
    the scanner in +z: rows run downwards, y upwards.
    """
    lines = content.split(b"\n", 7)
    header = re.fullmatch(rb"(\d{1,5})\s+rows\s*\n(\d{1,5})\s+columns\s*", b"\n".join(lines[:2]))
    if header is None or not lines[2].startswith(b"pixels (flag X Y Z)"):
        raise ValueError("its first lines are not those of an .abs file")
    rows, columns = int(header[1]), int(header[2])
    planes = [np.array(line.split(), dtype=np.float64).reshape(rows, columns) for line in lines[3:7]]
    valid = planes[0] != 0
    numbers = np.full(valid.shape, -1)
    numbers[valid] = np.arange(valid.sum())
    vertices = np.stack([plane[valid] for plane in planes[1:]], axis=-1)
    corners = numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]
    halves = [np.stack(half, axis=-1).reshape(-1, 3) for half in (corners[:3], (corners[0], *corners[2:]))]
    faces = np.concatenate(halves)
    faces = faces[(faces >= 0).all(axis=1)]
    sides = vertices[faces] - vertices[np.roll(faces, 1, axis=1)]
    return vertices, faces[((sides**2).sum(axis=-1) <= LONGEST_EDGE**2).all(axis=1)]


def read_scan_landmarks(path: Path) -> np.ndarray:
    """Landmarks of a scan: MeshLab's .pp, .txt with three numbers a line, .bnd (BU-3DFE) or .npy.

    Returns:
        (N, 3) float64 in the scan's unit, in the file's order.

    Raises:
        UserError: no such file, another format, damaged, empty, or not finite.
    """
    suffix = path.suffix.lower()
    if suffix == ".pp":
        points = _picked_points(path)
    elif suffix == ".txt":
        points = read_number_rows(path, 3)
    elif suffix == ".bnd":
        points = read_number_rows(path, 4)[:, 1:]  # the first number is the scan's vertex, from 0
    elif suffix == ".npy":
        points = read_npy(path)
    else:
        raise UserError(f"{path}: not landmarks in a known format (.pp, .txt, .bnd, .npy)")
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise UserError(f"{path}: numbers of shape {points.shape}, expected (N, 3)")
    if not np.isfinite(points).all():
        raise UserError(f"{path}: it holds coordinates that are not finite")
    return points


def _picked_points(path: Path) -> np.ndarray:
    """The `<point x= y= z=>` elements of a .pp file, in order. Read as text, so that no XML entity is expanded."""
    points = []
    for number, element in enumerate(re.findall(r"<point\b[^>]*>", read_text(path)), start=1):
        found = dict(re.findall(rf"""\b([xyz])\s*=\s*["']\s*({NUMBER})\s*["']""", element))
        if set(found) != {"x", "y", "z"}:
            raise UserError(f"{path}: point {number} has not one number each for x, y and z")
        points.append([float(found[axis]) for axis in "xyz"])
    return np.array(points, dtype=np.float64).reshape(-1, 3)
