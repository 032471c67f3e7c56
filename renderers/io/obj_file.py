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


def read_obj_vertices(path: Path, first: int | None = None) -> tuple[np.ndarray, int]:
    """The vertices alone, and how many there are.

    Args:
        path: the file.
        first: how many of them to read, all where absent; the others are counted and not looked at.

    Returns:
        (min(V, first), 3) float64; V.

    Raises:
        ObjError: no vertices, or lines that are none.
        OSError: the file cannot be opened.
    """
    lines = _starting(_text(path), b"v ")
    return _points(lines[:first], b"v ", 3), len(lines)


def read_obj(path: Path) -> ObjMesh:
    """The whole mesh.

    Raises:
        ObjError: no vertices or polygons, lines that are none, or indices that name nothing.
        OSError: the file cannot be opened.
    """
    text = _text(path)
    vertices, uv = _points(_starting(text, b"v "), b"v ", 3), np.empty((0, 2))
    if textures := _starting(text, b"vt "):
        uv = _points(textures, b"vt ", 2)
    triangles: list[tuple[int, int, int]] = []
    corners: list[tuple[int, int, int]] = []
    for line in _starting(text, b"f "):
        first, *others = _polygon(line, len(vertices), len(uv))
        for (a, texture_a), (b, texture_b) in pairwise(others):
            triangles.append((first[0], a, b))
            corners.append((first[1], texture_a, texture_b))
    if not triangles:
        raise ObjError("it holds no polygon (f)")
    return ObjMesh(vertices, uv, np.array(triangles, dtype=np.int64), np.array(corners, dtype=np.int64))


def _text(path: Path) -> bytes:
    """The file's content, a line feed before every line."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ObjError(f"it has {size} bytes, more than the {LARGEST} that are read")
    return b"\n" + path.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _starting(text: bytes, start: bytes) -> list[bytes]:
    """The lines that begin so."""
    mark = b"\n" + start
    head, tail = text.find(mark), text.rfind(mark)
    if head < 0:
        return []
    end = text.find(b"\n", tail + 1)
    lines = text[head + 1 : len(text) if end < 0 else end].split(b"\n")
    # Nearly all files have them in one piece, and looking at every line would take most of the time.
    together = text.count(mark, head) == len(lines)
    return lines if together else [line for line in lines if line.startswith(start)]


def _points(lines: list[bytes], start: bytes, count: int) -> np.ndarray:
    """(N, count) float64 of lines that begin so; numbers behind the first `count`, colours say, are dropped."""
    kind = start.decode().strip()
    chosen = [line[len(start) :].decode("latin-1") for line in lines]
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
