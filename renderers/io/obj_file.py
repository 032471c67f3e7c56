"""Vertices, texture coordinates and polygons of a Wavefront OBJ file; every other line of it is passed over."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

LARGEST = 2**28  # bytes; a mesh of ICT-FaceKit takes 3 MB
MOST_CORNERS = 64


class ObjError(ValueError):
    """Why a file cannot be read, as a clause without the file's name."""


@dataclass(frozen=True)
class ObjMesh:
    """What an OBJ file holds.

    Attributes:
        vertices: (V, 3).
        uv: (T, 2) texture coordinates, origin bottom-left; T may be 0.
        triangles: (F, 3) vertex indices from 0; a polygon becomes a fan about its first corner.
        corners: (F, 3) texture coordinate of each corner, -1 where the file names none.
    """

    vertices: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray
    corners: np.ndarray


def read_obj_vertices(path: Path) -> np.ndarray:
    """(V, 3) float64, the vertices alone.

    Raises:
        ObjError: no vertices, or lines that are none.
        OSError: the file cannot be opened.
    """
    return _points(_lines(path), b"v ", 3)


def read_obj(path: Path) -> ObjMesh:
    """The whole mesh.

    Raises:
        ObjError: no vertices or polygons, lines that are none, or indices that name nothing.
        OSError: the file cannot be opened.
    """
    lines = _lines(path)
    vertices, uv = _points(lines, b"v ", 3), np.empty((0, 2))
    if any(line.startswith(b"vt ") for line in lines):
        uv = _points(lines, b"vt ", 2)
    triangles: list[tuple[int, int, int]] = []
    corners: list[tuple[int, int, int]] = []
    for line in lines:
        if line.startswith(b"f "):
            first, *others = _polygon(line, len(vertices), len(uv))
            for (a, texture_a), (b, texture_b) in pairwise(others):
                triangles.append((first[0], a, b))
                corners.append((first[1], texture_a, texture_b))
    if not triangles:
        raise ObjError("it holds no polygon (f)")
    return ObjMesh(vertices, uv, np.array(triangles, dtype=np.int64), np.array(corners, dtype=np.int64))


def _lines(path: Path) -> list[bytes]:
    size = path.stat().st_size
    if size > LARGEST:
        raise ObjError(f"it has {size} bytes, more than the {LARGEST} that are read")
    return path.read_bytes().splitlines()


def _points(lines: list[bytes], start: bytes, count: int) -> np.ndarray:
    """(N, count) float64 of the lines that begin so; numbers behind the first `count`, colours say, are dropped."""
    kind = start.decode().strip()
    chosen = [line[len(start) :].decode("latin-1") for line in lines if line.startswith(start)]
    if not chosen:
        raise ObjError(f"it holds no line {kind} of {count} numbers")
    try:
        points = np.loadtxt(chosen, dtype=np.float64, comments=None, ndmin=2)
    except (ValueError, IndexError) as error:
        raise ObjError(f"a line {kind} is no row of {count} numbers ({' '.join(str(error).split())[:80]})") from error
    if len(points) != len(chosen) or points.shape[1] < count:
        raise ObjError(f"{len(points)} of {len(chosen)} lines {kind} hold {points.shape[1]} numbers, expected {count}")
    if not np.isfinite(points[:, :count]).all():
        raise ObjError(f"a line {kind} holds a value that is not finite")
    return points[:, :count]


def _polygon(line: bytes, vertices: int, textures: int) -> list[tuple[int, int]]:
    """(vertex, texture coordinate) of each corner, from 0; -1 for no texture coordinate."""
    words = line.split()[1:]
    if not 3 <= len(words) <= MOST_CORNERS:
        raise ObjError(f"a polygon has {len(words)} corners, expected 3 to {MOST_CORNERS}")
    found = []
    for word in words:
        vertex, _, rest = word.partition(b"/")
        texture = rest.partition(b"/")[0]
        found.append((_index(vertex, vertices, word), _index(texture, textures, word) if texture else -1))
    return found


def _index(digits: bytes, count: int, word: bytes) -> int:
    # Ten digits are more than any mesh has; Python would spend seconds on a million of them.
    if not digits.isdigit() or len(digits) > 10 or not 1 <= int(digits) <= count:
        shown = word[:20].decode("ascii", "replace")
        raise ObjError(f"a polygon names {shown!r}, expected whole numbers from 1 to {count}")
    return int(digits) - 1
