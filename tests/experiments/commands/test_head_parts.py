"""Eyeballs, teeth and tongue of a written mesh, and where the eyes look."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from datamodules.synthesis.people import HeadSettings
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic_heads import SyntheticHeads
from experiments.commands.reconstruct.export import FaceMesh, face_mesh, write_obj
from experiments.commands.reconstruct.gaze import DIRECTIONS, iris_contrast, with_gaze
from experiments.commands.reconstruct.gltf import glb
from experiments.commands.reconstruct.head_parts import SWATCH, head_parts
from experiments.commands.reconstruct.photo import Photo
from renderers.coefficients import Coefficients
from renderers.face_models.default.gaze import FULL_GAZE
from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer, mean_coefficients
from renderers.uv.chart import UVChart
from tests.conf.scenes import small_face_model


@pytest.fixture(scope="module")
def model() -> LinearModel:
    return load_default()


@pytest.fixture(scope="module")
def speaking(model: LinearModel) -> Coefficients:
    """Somebody with a half open jaw."""
    coefficients = mean_coefficients(model, 1)
    coefficients.identity = torch.randn(1, model.identity_size, generator=torch.Generator().manual_seed(0))
    coefficients.expression = torch.zeros(1, model.expression_size)
    coefficients.expression[0, model.expression_names.index("jawOpen")] = 0.5
    return coefficients


@pytest.fixture(scope="module")
def mesh(model: LinearModel, speaking: Coefficients) -> FaceMesh:
    with torch.no_grad():
        rendering = FaceRenderer(model, 64)(speaking)
    return face_mesh(model, rendering, speaking, np.full((512, 512, 3), 90, np.uint8))


def test_the_face_models_vertices_come_first_and_unchanged(
    mesh: FaceMesh, model: LinearModel, speaking: Coefficients
) -> None:
    shape = 100 * model.shape(speaking.identity, speaking.expression)[0].numpy()
    np.testing.assert_allclose(mesh.vertices[: model.vertex_count], shape, atol=1e-3)
    assert list(mesh.parts) == ["face", "eyes", "mouth", "teeth", "tongue"]
    assert mesh.faces.max() == len(mesh.vertices) - 1 == len(mesh.uv) - 1
    assert mesh.morph is not None
    morphed = mesh.morph.neutral + np.einsum("k,kvc->vc", mesh.morph.weights, mesh.morph.offsets)
    np.testing.assert_allclose(morphed, mesh.vertices, atol=1e-3)


def test_lower_teeth_and_tongue_go_with_the_jaw(mesh: FaceMesh) -> None:
    assert mesh.morph is not None
    drop = mesh.morph.offsets[mesh.morph.names.index("jawOpen"), :, 1]
    pieces = trimesh.graph.connected_components(trimesh.geometry.faces_to_edges(mesh.parts["teeth"]))
    kinds = {"still" if np.abs(drop[piece]).max() < 0.1 else "falling": piece for piece in pieces}
    assert set(kinds) == {"still", "falling"} and drop[kinds["falling"]].max() < -5  # millimetres
    assert mesh.vertices[kinds["still"], 1].mean() > mesh.vertices[kinds["falling"], 1].mean()
    assert drop[np.unique(mesh.parts["tongue"])].min() < -10


def test_eyeballs_are_whole_and_turn_about_their_middle(mesh: FaceMesh) -> None:
    balls = trimesh.Trimesh(mesh.vertices, mesh.parts["eyes"], process=False).split(only_watertight=True)
    assert len(balls) == 2 and all(ball.is_winding_consistent and ball.volume > 0 for ball in balls)
    assert mesh.morph is not None
    names = mesh.morph.names
    look = mesh.morph.offsets[names.index("eyeLookOutLeft")]
    left = np.unique(mesh.parts["eyes"])
    left = left[mesh.vertices[left, 0] > 0]
    before, after = mesh.vertices[left], mesh.vertices[left] + look[left]
    middle = (before.max(axis=0) + before.min(axis=0)) / 2
    rotation, _ = trimesh.registration.procrustes(before - middle, after - middle, reflection=False, scale=False)[:2]
    turned = np.degrees(np.arccos((np.trace(rotation[:3, :3]) - 1) / 2))
    assert turned == pytest.approx(FULL_GAZE, abs=2.5)  # about the mean person's middle, where the unit was made


def test_no_chart_reaches_the_corners_where_the_mouth_is_painted(mesh: FaceMesh, model: LinearModel) -> None:
    mask, side = UVChart(model, 256).mask[0, 0].numpy(), round(256 * SWATCH)
    for corner in (mask[:side, :side], mask[:side, -side:], mask[-side:, :side], mask[-side:, -side:]):
        assert not corner.any()
    texels = (mesh.uv[np.unique(mesh.parts["teeth"])] * 512 * [1, -1] + [0, 512]).astype(int)
    teeth = mesh.texture[texels[:, 1], texels[:, 0]]
    assert (teeth == teeth[0]).all() and (teeth[0] != 90).all()


def test_every_part_is_a_named_primitive_with_all_expressions(mesh: FaceMesh, tmp_path: Path) -> None:
    content = glb(mesh)
    (length,) = struct.unpack_from("<I", content, 12)
    tree = json.loads(content[20 : 20 + length])
    (shape,) = tree["meshes"]
    assert [tree["materials"][part["material"]]["name"] for part in shape["primitives"]] == list(mesh.parts)
    assert all(len(part["targets"]) == 52 for part in shape["primitives"])
    assert len(tree["images"]) == len(tree["textures"]) == 1 and tree["nodes"][tree["scenes"][0]["nodes"][0]]
    loaded = trimesh.load_scene(io.BytesIO(content), file_type="glb")
    assert sum(len(body.faces) for body in loaded.geometry.values()) == len(mesh.faces)
    write_obj(mesh, tmp_path)
    groups = [line[2:] for line in (tmp_path / "mesh.obj").read_text().splitlines() if line.startswith("g ")]
    assert groups == list(mesh.parts)


def test_other_face_models_have_no_parts(model: LinearModel) -> None:
    assert head_parts(small_face_model()) is None
    assert head_parts(load_default(1)) is None


OPENING = np.array([[20.0, 60], [50, 45], [70, 45], [100, 60], [70, 75], [50, 75]])


@pytest.mark.parametrize(("aside", "up"), [(0.0, 0.0), (0.3, 0.0), (-0.35, 0.0), (0.15, 0.1)])
@pytest.mark.parametrize("color", [(40, 25, 15), (90, 130, 170)])  # brown and blue
def test_a_painted_iris_is_found(aside: float, up: float, color: tuple[int, int, int]) -> None:
    picture = np.full((120, 120, 3), 190, np.uint8)
    place = (round(60 + 50 * aside), round(60 - 50 * up))
    cv2.circle(picture, place, 17, color, -1, lineType=cv2.LINE_AA)
    cv2.circle(picture, (place[0] + 4, place[1] - 4), 3, (255, 255, 255), -1)  # a highlight
    contrast = iris_contrast(picture, OPENING, np.array([60.0, 60.0]), 50.0)
    best = DIRECTIONS[contrast.argmax()]
    assert contrast.max() > 0.5
    assert best[0] == pytest.approx(aside, abs=0.06)
    assert best[1] == pytest.approx(up, abs=0.12)  # the lids cover its upper and lower rim
    flat = np.full_like(picture, 190)
    assert np.abs(iris_contrast(flat, OPENING, np.array([60.0, 60.0]), 50.0)).max() < 0.05


def test_shut_eyes_look_ahead(model: LinearModel, speaking: Coefficients) -> None:
    expression = speaking.expression.clone()
    expression[0, model.expression_names.index("eyeLookOutLeft")] = 0.8
    marks = np.zeros((68, 2))
    for eye in (slice(36, 42), slice(42, 48)):
        marks[eye] = np.column_stack([OPENING[:, 0], np.full(6, 60.0)])
    aside = replace(speaking, expression=expression)
    found = with_gaze(model, aside, torch.eye(4)[:3], np.zeros((120, 120, 3), np.uint8), marks)
    assert float(found.expression[0, model.expression_names.index("eyeLookOutLeft")]) < 0.02
    assert float(found.expression[0, model.expression_names.index("jawOpen")]) == 0.5


@pytest.mark.slow
def test_where_drawn_heads_look_is_found(model: LinearModel, capsys: pytest.CaptureFixture[str]) -> None:
    """Of heads with open eyes, turned up to 30 degrees, in light of real places, reconstructed from their pictures."""
    from experiments.commands.reconstruct.loading import load_pipeline

    settings = SceneSettings(views=1, max_yaw=30.0, heads=HeadSettings(zoom=(0.72, 0.95), things=0.0))
    people, pipeline = SyntheticHeads(model, "test", 60, 256, 31, settings), load_pipeline(detector="dlib")
    columns = {name: number for number, name in enumerate(model.expression_names)}

    def gaze(expression: torch.Tensor) -> tuple[float, float]:
        """Degrees to the left and upwards, the mean of both eyes."""
        units = {name: FULL_GAZE / 2 * float(expression[columns[name]]) for name in columns if "eyeLook" in name}
        left = units["eyeLookOutLeft"] - units["eyeLookInLeft"] + units["eyeLookInRight"] - units["eyeLookOutRight"]
        up = sum(units[f"eyeLookUp{side}"] - units[f"eyeLookDown{side}"] for side in ("Left", "Right"))
        return left, up

    pairs = []
    for index in range(60):
        person = people.person(index)
        true = people.layout.split(person["coefficients"]).expression[0]
        if max(true[columns["eyeBlinkLeft"]], true[columns["eyeBlinkRight"]]) > 0.5:
            continue
        pixels = (person["image"][0].permute(1, 2, 0) * 255).round().byte().numpy()
        face = pipeline.reconstruct(Photo("head", "head", pixels))[0]
        pairs.append([gaze(true), gaze(face.coefficients.expression[0])])
    true, found = np.array(pairs).swapaxes(0, 1)
    correlation = [np.corrcoef(true[:, axis], found[:, axis])[0, 1] for axis in range(2)]
    median = np.median(np.abs(true - found), axis=0)
    with capsys.disabled():
        print(f"\n{len(pairs)} heads; aside and up: correlation {correlation}, median error {median} degrees")
    assert len(pairs) == 51 and correlation[0] > 0.8 and median[0] < 3
