"""Scans and their landmarks: every format against numbers known beforehand, and files that are damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.datasets import scans
from datamodules.datasets.scans import read_scan, read_scan_landmarks
from renderers.io.errors import UserError
from tests.conf.fake_datasets import head_scan, picked_points_lines, range_image_lines, save_obj, save_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scans")


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_agrees_with_what_was_written(tmp_path: Path, encoding: str) -> None:
    head_scan().export(tmp_path / "scan.ply", encoding=encoding)
    scan = read_scan(tmp_path / "scan.ply")
    np.testing.assert_allclose(scan.vertices, head_scan().vertices, atol=1e-4)
    np.testing.assert_array_equal(scan.faces, head_scan().faces)


def test_obj_polygons_negative_indices_and_repeated_corners(tmp_path: Path) -> None:
    save_text(
        tmp_path / "scan.obj",
        *("v 0 0 0 0.5 0.5 0.5", "v 1 0 0", "v 1 1 0", "v 0 1 0"),
        *("f 1/1/1 2/2/2 3/3/3 4/4/4", "f -4 -3 -2", "f 1 1 2"),
    )
    scan = read_scan(tmp_path / "scan.obj")
    np.testing.assert_array_equal(scan.vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert sorted(scan.faces.tolist()) == [[0, 1, 2], [0, 1, 2], [0, 2, 3]]


def test_obj_that_is_not_manifold_is_read_as_it_is(tmp_path: Path) -> None:
    points = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1", "v 0 -1 0"]
    save_text(tmp_path / "fan.obj", *points, "f 1 2 3", "f 1 2 4", "f 1 2 5")  # three faces on one edge
    scan = read_scan(tmp_path / "fan.obj")
    assert len(scan.faces) == 3 and not trimesh.Trimesh(scan.vertices, scan.faces, process=False).is_watertight


def test_range_image_joins_neighbours_and_leaves_holes_and_jumps(tmp_path: Path) -> None:
    rows, columns = 12, 10
    text = "".join(f"{line}\n" for line in range_image_lines(rows, columns))
    (tmp_path / "plane.abs").write_text(text)
    (tmp_path / "plane.abs.gz").write_bytes(gzip.compress(text.encode()))
    scan = read_scan(tmp_path / "plane.abs")
    assert len(scan.vertices) == rows * (columns - 1)
    assert len(scan.faces) == 2 * (rows - 1) * (columns - 2)
    mesh = trimesh.Trimesh(scan.vertices, scan.faces, process=False)
    assert (mesh.face_normals[:, 2] > 0.9).all()
    spanned = 2 * (columns - 2) * 2 * (rows - 1) * np.sqrt(1 + 0.25**2)
    assert mesh.area == pytest.approx(spanned)
    packed = read_scan(tmp_path / "plane.abs.gz")
    np.testing.assert_array_equal(packed.vertices, scan.vertices)
    lines = range_image_lines(rows, columns)
    lines[6] = lines[6].replace(lines[6].split()[5], "-1000.0", 1)  # 500 mm before its neighbours
    save_text(tmp_path / "jump.abs", *lines)
    assert len(read_scan(tmp_path / "jump.abs").faces) < len(scan.faces)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.obj", "v 0 0 0\n", "1 vertices and 0 faces"),
        ("a.obj", "v 0 0\nf 1 1 1\n", "not a scan of its format"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 nan\nf 1 2 3\n", "not finite"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "vertex 8 of 3"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "a face line"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -9\n", "vertex"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 1 2\n", "a corner twice"),
        ("a.ply", "ply\nformat ascii 1.0\nelement vertex 99999999\n", "not a scan of its format"),
        ("a.wrl", "#VRML V2.0\n", "no Coordinate points"),
        ("a.wrl", "Coordinate { point [ 0 0 x ] } coordIndex [ 0 0 0 ]", "not a scan of its format"),
        ("a.abs", "90000 rows\n90000 columns\npixels (flag X Y Z):\n1\n1\n1\n1\n", "not a scan of its format"),
        ("a.abs", "hello\n", "first lines"),
        ("a.abs.gz", "hello\n", "damaged|gzip"),
        ("a.stl", "solid\n", "known format"),
    ],
)
def test_scans_that_are_wrong_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        read_scan(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_packed_scan_larger_than_any_scan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "LARGEST", 10_000)
    (tmp_path / "bomb.abs.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(UserError, match="more than 10000 bytes"):
        read_scan(tmp_path / "bomb.abs.gz")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([".obj", ".ply", ".wrl", ".abs"]), st.floats(0, 1), st.binary(max_size=8), st.booleans())
def test_damaged_scans_are_read_or_refused(folder: Path, suffix: str, where: float, damage: bytes, cut: bool) -> None:
    good = {
        ".obj": lambda: save_obj(folder / "good.obj").read_bytes(),
        ".ply": lambda: head_scan().export(file_type="ply"),
        ".wrl": lambda: b"Coordinate { point [ 0 0 0, 1 0 0, 0 1 0 ] } coordIndex [ 0, 1, 2, -1 ]",
        ".abs": lambda: "\n".join(range_image_lines()).encode(),
    }[suffix]()
    place = int(where * len(good))
    path = folder / f"damaged{suffix}"
    path.write_bytes(good[:place] if cut else good[:place] + damage + good[place + len(damage) :])
    try:
        scan = read_scan(path)
    except UserError as error:
        assert path.name in str(error) and "\n" not in str(error)
    else:
        assert np.isfinite(scan.vertices).all() and 0 <= scan.faces.min() <= scan.faces.max() < len(scan.vertices)


def test_landmarks_of_every_format_agree(tmp_path: Path) -> None:
    points = head_scan().vertices[:7]
    save_text(tmp_path / "a.pp", *picked_points_lines(points))
    save_text(tmp_path / "a.txt", *(f"{x} {y} {z}" for x, y, z in points))
    save_text(tmp_path / "a.bnd", *(f"{k} {x} {y} {z}" for k, (x, y, z) in enumerate(points)))
    np.save(tmp_path / "a.npy", points)
    for suffix in (".pp", ".txt", ".bnd", ".npy"):
        np.testing.assert_allclose(read_scan_landmarks(tmp_path / f"a{suffix}"), points, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.pp", '<point x="1" y="2" name="3"/>', "point 1 has not one number"),
        ("a.pp", '<point x="1" y="2" z="nan"/>', "point 1 has not one number"),
        ("a.pp", '<point x="1" y="2" z="1e999"/>', "not finite"),
        ("a.pp", '<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">&b;', r"expected \(N, 3\)"),
        ("a.txt", "", r"expected \(N, 3\)"),
        ("a.txt", "1 2\n", "expected 3 numbers"),
        ("a.lm", "", "known format"),
    ],
)
def test_landmarks_that_are_wrong_are_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told):
        read_scan_landmarks(tmp_path / name)
