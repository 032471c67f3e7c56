"""Detail of reconstructed faces: what its files hold, against the module that found it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from skimage import data

from experiments.commands.reconstruct import command, results
from experiments.commands.reconstruct.detail import MIDDLE, STEPS_PER_MILLIMETRE, FaceDetail, subdivisions
from experiments.commands.reconstruct.face import ReconstructedFace
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.finegrained import Finegrained
from lightning_modules.mgcnet import MGCNet
from renderers.color import encode
from renderers.io.errors import UserError
from renderers.reflectance import decode_light, decode_shininess
from renderers.uv.chart import UVChart
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import small_face_model
from tests.experiments.commands.test_reconstruct import _arguments, read_json
from tests.lightning_modules.test_reconstruction import loud_module

SIZE = 64
NAMES = {"mesh.obj", "mesh.mtl", "mesh.glb", "albedo.png", "normals.png", "displacement.png", "panels.png"}


def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:256, 96:352])


def finegrained(loudness: float) -> Finegrained:
    """A module whose untrained networks add detail of some strength."""
    torch.manual_seed(0)
    module = Finegrained(
        small_face_model(), ResNet(18), SmallEncoder(), image_size=48, chart_size=40, channels=(4, 6, 8)
    )
    for part in (module.albedo_module, module.displacement_module):
        torch.nn.init.normal_(part.head.weight, std=loudness)
    return module.eval()


def reconstructed(module: FaceModule) -> ReconstructedFace:
    pipeline = ReconstructionPipeline(module.face_model, module, "dlib", refine=False, detail_size=SIZE)
    (face,) = pipeline.reconstruct(Photo("a", "a.png", portrait()))
    return face


def written(face: ReconstructedFace, module: FaceModule, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `detail` of a face's result."""
    monkeypatch.setattr(ReconstructionPipeline, "reconstruct", lambda self, photo, tell: [face])
    pipeline = ReconstructionPipeline(module.face_model, module, "dlib", refine=False)
    results.reconstruct_photo(Photo("a", "a.png", portrait()), out, pipeline)
    return out / "detail"


def test_files_hold_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = finegrained(0.3)
    face = reconstructed(module)
    detail, chart = face.detail, UVChart(module.face_model, SIZE)
    assert isinstance(detail, FaceDetail) and "detail" in face.seconds
    folder = written(face, module, tmp_path / "out", monkeypatch)
    assert {entry.name for entry in folder.iterdir()} == NAMES
    assert read_json(tmp_path / "out" / "reconstruction.json")["faces"][0]["detail"]["size"] == SIZE

    steps = np.asarray(Image.open(folder / "displacement.png"))
    assert steps.dtype == np.uint16 and steps.shape == (SIZE, SIZE)
    millimetres = (steps.astype(float) - MIDDLE) / STEPS_PER_MILLIMETRE
    np.testing.assert_allclose(millimetres, detail.displacement, atol=1 / STEPS_PER_MILLIMETRE)
    assert 0.05 < np.abs(millimetres).max() <= 3
    normals = np.asarray(Image.open(folder / "normals.png")) / 127.5 - 1
    inside = chart.mask[0, 0].numpy()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1)[inside], 1, atol=0.02)
    assert normals[inside].mean(axis=0)[2] > 0.3  # the face looks to its viewer, however the head is turned
    assert (
        np.asarray(Image.open(folder / "panels.png")).shape[1]
        == 5 * np.asarray(Image.open(folder / "panels.png")).shape[0]
    )

    levels = subdivisions(len(module.face_model.faces), SIZE)
    shape = module.face_model.shape(face.coefficients.identity, face.coefficients.expression)[0]
    coarse = trimesh.Trimesh(100 * shape.numpy(), module.face_model.faces.numpy(), process=False)
    for _ in range(levels):
        coarse = coarse.subdivide()
    (glb,) = trimesh.load(folder / "mesh.glb").geometry.values()
    obj = trimesh.load(folder / "mesh.obj", process=False)
    assert len(glb.faces) == len(obj.faces) == len(module.face_model.faces) * 4**levels
    np.testing.assert_allclose(1000 * glb.bounds, coarse.bounds, atol=np.abs(millimetres).max() + 0.01)
    texture = np.asarray(Image.open(folder / "albedo.png"))
    assert texture.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(np.asarray(glb.visual.material.baseColorTexture.convert("RGB")), texture)


def test_without_detail_the_maps_are_the_coarse_faces() -> None:
    module = finegrained(0.0)
    face = reconstructed(module)
    assert face.detail is not None and face.detail.displacement is not None and not face.detail.displacement.any()
    chart = UVChart(module.face_model, SIZE)
    inside = chart.mask[0, 0].numpy()
    albedo = chart.bake(module.face_model.albedo(face.coefficients.albedo)).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(face.detail.mesh.texture[inside] / 255, albedo[inside], atol=0.003)
    shape = module.face_model.shape(face.coefficients.identity, face.coefficients.expression)
    normals = chart.bake(module.face_model.normals(shape))[0].permute(1, 2, 0).numpy()
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-6)
    np.testing.assert_allclose(face.detail.normals[inside], normals[inside], atol=1e-4)


def test_a_fine_texture_is_on_the_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of self-augmentation: the albedo map, and what the photograph does not show of the textured mesh."""
    module = loud_module("self_augmentation")
    face = reconstructed(module)
    folder = written(face, module, tmp_path / "out", monkeypatch)
    assert {entry.name for entry in folder.iterdir()} == NAMES - {"displacement.png"}
    chart = UVChart(module.face_model, SIZE)
    inside = chart.mask[0, 0].numpy()
    coarse = chart.bake(module.face_model.albedo(face.coefficients.albedo))[0].permute(1, 2, 0).numpy().clip(0, 1)
    albedo = np.asarray(Image.open(folder / "albedo.png")) / 255
    wanted = chart.bake(face.rendering.vertex_albedo)[0].permute(1, 2, 0).numpy().clip(0, 1)
    np.testing.assert_allclose(albedo[inside], wanted[inside], atol=0.003)
    assert np.abs(albedo - coarse)[inside].max() > 0.02
    obj = trimesh.load(folder / "mesh.obj", process=False)
    assert len(obj.faces) == len(module.face_model.faces)


def test_highlights_are_on_the_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the specular paper: both albedos and the exponent as the material, the lamp in the record and the report."""
    module = loud_module("specular")
    face = reconstructed(module)
    folder = written(face, module, tmp_path / "out", monkeypatch)
    assert {entry.name for entry in folder.iterdir()} == NAMES - {"displacement.png"} | {"specular_albedo.png"}
    chart, extra = UVChart(module.face_model, SIZE), face.coefficients.extra
    inside, specular = (
        chart.mask[0, 0].numpy(),
        chart.bake(encode(module.face_model.specular(face.coefficients.albedo))),
    )
    written_albedo = np.asarray(Image.open(folder / "specular_albedo.png")) / 255
    np.testing.assert_allclose(written_albedo[inside], specular[0].permute(1, 2, 0).numpy()[inside], atol=0.003)
    shininess, lamp = decode_shininess(extra["shininess"])[0], 100 * decode_light(extra["light_position"])[0]
    material = (folder / "mesh.mtl").read_text()
    assert f"Ns {float(shininess):.2f}" in material and "map_Ks specular_albedo.png" in material
    (glb,) = trimesh.load(folder / "mesh.glb").geometry.values()
    assert glb.visual.material.roughnessFactor == pytest.approx((2 / (float(shininess) + 2)) ** 0.25)
    record = read_json(tmp_path / "out" / "reconstruction.json")["faces"][0]["detail"]
    np.testing.assert_allclose(record["light_position_mm"], lamp.tolist(), atol=1e-3)
    np.testing.assert_allclose(record["shininess"], shininess.tolist(), atol=1e-3)
    page = (tmp_path / "out" / "report.html").read_text()
    (figures,) = (each["figures"] for each in json.loads(page.split('json">')[1].split("</script>")[0])["faces"])
    assert ["Shininess", f"{float(shininess):.1f}"] in figures and "Light position" in dict(figures)


@pytest.mark.parametrize(
    ("faces", "size", "levels"), [(8224, 256, 1), (8224, 512, 2), (8224, 1024, 3), (70789, 256, 0)]
)
def test_no_more_triangles_than_texels(faces: int, size: int, levels: int) -> None:
    assert subdivisions(faces, size) == levels


def test_detail_of_a_module_without_any_is_refused(tmp_path: Path) -> None:
    module = MGCNet(small_face_model(), ResNet(18), SmallEncoder(), 48)
    assert not module.finds_detail
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    with pytest.raises(UserError, match="--detail-size: only a checkpoint"):
        command.run(_arguments(str(image), "--out", str(tmp_path / "out"), "--detail-size", "256"))
