"""OBJ files against trimesh and against what was written; malformed ones are refused in one clause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renderers.io.obj_file import ObjError, read_obj, read_obj_vertices

LAX = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SQUARE = "mtllib a.mtl\no square\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvn 0 0 1\ns off\n"
QUAD = "f 1/1/1 2/2/1 3/3/1 4/4/1\n"


def written(path: Path, text: str | bytes) -> Path:
    (path / "mesh.obj").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path / "mesh.obj"


def message(path: Path) -> str:
    with pytest.raises(ObjError) as raised:
        read_obj(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    return str(raised.value)


def test_a_quad_becomes_a_fan_with_a_uv_at_each_corner(tmp_path: Path) -> None:
    mesh = read_obj(written(tmp_path, SQUARE + QUAD))
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.corners.tolist() == [[0, 1, 2], [0, 2, 3]]
    np.testing.assert_array_equal(mesh.uv, [[0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(mesh.vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])


def test_reads_what_trimesh_writes(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(subdivisions=2)
    path = written(tmp_path, trimesh.exchange.obj.export_obj(sphere, include_normals=True, digits=12))
    mesh = read_obj(path)
    np.testing.assert_allclose(mesh.vertices, sphere.vertices, atol=1e-11)
    np.testing.assert_array_equal(mesh.triangles, sphere.faces)
    assert (mesh.corners == -1).all() and len(mesh.uv) == 0
    vertices, count = read_obj_vertices(path)
    np.testing.assert_array_equal(vertices, mesh.vertices)
    assert count == len(sphere.vertices)


@pytest.mark.parametrize("between", ["", "# a comment\n", "vn 0 0 1\n", "\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_vertices_are_found_together_or_apart(tmp_path: Path, between: str, end: str) -> None:
    text = between.join(f"v {k} {k + 0.5} -{k}\n" for k in range(5)) + "f 1 2 3\n"
    path = written(tmp_path, text.replace("\n", end))
    np.testing.assert_array_equal(read_obj(path).vertices, [[k, k + 0.5, -k] for k in range(5)])
    vertices, count = read_obj_vertices(path, first=2)
    assert vertices.tolist() == [[0, 0.5, 0], [1, 1.5, -1]] and count == 5


@pytest.mark.parametrize("corner", ["{0}", "{0}//1", "{0}/{0}", "{0}/{0}/1"])
def test_every_way_to_write_a_corner(tmp_path: Path, corner: str) -> None:
    line = "f " + " ".join(corner.format(k) for k in (1, 2, 3)) + "\r\n"
    mesh = read_obj(written(tmp_path, SQUARE.replace("\n", "\r\n") + line))
    assert mesh.triangles.tolist() == [[0, 1, 2]]
    assert mesh.corners.tolist() == ([[0, 1, 2]] if "/{0}" in corner else [[-1, -1, -1]])


def test_numbers_behind_the_place_are_dropped(tmp_path: Path) -> None:
    colored = "".join(f"v {k} 0 {k * k} 0.5 0.5 0.5\n" for k in range(3)) + "f 1 2 3\n"
    np.testing.assert_array_equal(read_obj(written(tmp_path, colored)).vertices, [[0, 0, 0], [1, 0, 1], [2, 0, 4]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it holds no line v of 3 numbers"),
        ("f 1 2 3\n", "it holds no line v of 3 numbers"),
        (SQUARE, "it holds no polygon (f)"),
        (SQUARE + "f 1 2\n", "a polygon has 2 corners, expected 3 to 64"),
        (SQUARE + "f " + "1 " * 65 + "\n", "a polygon has 65 corners"),
        (SQUARE + "f 1 2 5\n", "a polygon names '5', expected whole numbers from 1 to 4"),
        (SQUARE + "f 0 1 2\n", "a polygon names '0'"),
        (SQUARE + "f -1 -2 -3\n", "a polygon names '-1'"),
        (SQUARE + "f 1/9 2/2 3/3\n", "a polygon names '1/9'"),
        (SQUARE + "f 1.5 2 3\n", "a polygon names '1.5'"),
        (SQUARE + "f " + "9" * 10**6 + " 2 3\n", "a polygon names '99999"),
        ("v 0 0\nv 1 1\nf 1 2 1\n", "hold 2 numbers, expected 3"),
        ("v 0 0 0\nv 1 1\n", "a line v is no row of 3 numbers"),
        ("v 0 0 nan\nf 1 1 1\n", "a line v holds a value that is not finite"),
        ("v 0 0 1e999\nf 1 1 1\n", "a line v holds a value that is not finite"),
        ("v a b c\n", "a line v is no row of 3 numbers"),
        (b"v \xff\xfe \x00 1\n", "a line v is no row of 3 numbers"),
        (SQUARE + "vt 1\n" + QUAD, "a line vt is no row of 2 numbers"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in message(written(tmp_path, text))


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.obj"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    assert "more than the 268435456 that are read" in message(path)


@LAX
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((SQUARE + QUAD).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path, bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        mesh = read_obj(path)
    except ObjError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(mesh.vertices).all()
        assert mesh.triangles.min() >= 0 and mesh.triangles.max() < len(mesh.vertices)
        assert mesh.corners.max() < max(len(mesh.uv), 1)
