"""`reconstruct --same-person`: one identity and texture for all photographs, each with its own camera."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from skimage import data

from datamodules.synthesis.people import HeadSettings
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic_heads import SyntheticHeads
from experiments.__main__ import main
from experiments.commands.reconstruct import same_person
from experiments.commands.reconstruct.loading import load_pipeline
from experiments.commands.reconstruct.output import check_replaceable
from experiments.commands.reconstruct.photo import Photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.same_person import reconstruct_person
from experiments.fitting.photometric_fitting import FitSettings
from losses.encoders import DlibEncoder
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.default.model import load_default
from renderers.face_models.linear import LinearModel
from renderers.io.errors import UserError
from tests.conf.fake_bfm import write_fake_bfm

QUICK = FitSettings(photometric_iterations=2, landmark_rounds=2)


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory) -> LinearModel:
    return load_bfm2009(write_fake_bfm(Path(tmp_path_factory.mktemp("bfm")) / "BFM_model_front.mat"))


@pytest.fixture(scope="module")
def pipeline(face_model: LinearModel) -> ReconstructionPipeline:
    return ReconstructionPipeline(face_model, detector="dlib", settings=QUICK)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The astronaut, her mirror image in other light, and a picture without a face."""
    folder = Path(tmp_path_factory.mktemp("photographs"))
    portrait = np.ascontiguousarray(data.astronaut()[:256, 96:352])
    darker = (portrait[:, ::-1] * np.array([0.8, 0.7, 0.6])).astype(np.uint8)
    pictures = {"a.png": portrait, "b.png": darker, "c.png": np.full((64, 64, 3), 90, np.uint8)}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name)
    return [folder / name for name in pictures]


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory, pipeline: ReconstructionPipeline, photographs: list[Path]
) -> tuple[Path, str]:
    """The result, and what was said; the limit is nearer than her mirror image is."""
    out = Path(tmp_path_factory.mktemp("person")) / "out"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setattr(same_person, "DIFFERENT", 0.05)
        reconstruct_person(photographs, out, pipeline)
    return out, said.getvalue()


@pytest.fixture
def result(printed: tuple[Path, str]) -> Path:
    return printed[0]


def test_all_views_have_one_identity_and_one_texture(result: Path, face_model: LinearModel) -> None:
    record = json.loads((result / "reconstruction.json").read_text())
    first, second = record["views"]
    assert [view["folder"] for view in (first, second)] == ["view_1", "view_2"]
    for name in ("identity", "albedo"):
        assert first["coefficients"][name] == second["coefficients"][name]
        assert np.abs(first["coefficients"][name]).max() > 0.01
    for name in ("illumination", "angles"):
        assert first["coefficients"][name] != second["coefficients"][name]
    identity = torch.tensor([first["coefficients"]["identity"]])
    neutral = 100 * face_model.shape(identity, torch.zeros(1, face_model.expression_size))[0].numpy()
    obj = trimesh.load(result / "mesh.obj", process=False)
    np.testing.assert_allclose(obj.vertices, neutral, atol=0.05)
    textures = [np.asarray(Image.open(place / "mesh.png")) for place in (result, result / "view_1", result / "view_2")]
    assert textures[0].std() > 10
    np.testing.assert_array_equal(textures[1], textures[0])
    np.testing.assert_array_equal(textures[2], textures[0])
    assert "no face found" in record["skipped"][next(iter(record["skipped"]))]
    check_replaceable(result)  # ours, folders included


def test_every_view_has_its_camera(result: Path) -> None:
    for view in json.loads((result / "reconstruction.json").read_text())["views"]:
        mesh = trimesh.load(result / view["folder"] / "mesh.obj", process=False)
        camera = {name: np.array(value) for name, value in view["camera"].items()}
        turn, _ = cv2.Rodrigues(camera["rotation"])
        points = mesh.vertices[view["landmark_vertices"]]
        seen, _ = cv2.projectPoints(points, turn, camera["translation"], camera["intrinsics"], None)
        np.testing.assert_allclose(seen[:, 0], view["landmarks_projected"], atol=0.02)


def test_another_person_is_told_with_the_distance(printed: tuple[Path, str]) -> None:
    out, said = printed
    record = json.loads((out / "reconstruction.json").read_text())
    (told,) = record["another_person"]
    assert 0.05 < told["distance"] < same_person.DIFFERENT and told["distance"] == record["identity_distances"][0][1]
    assert f"b.png may show another person: its face is {told['distance']:.2f}" in said
    assert "c.png: no face found" in said and "may show another person" in (out / "report.html").read_text()


def test_of_several_faces_the_same_person_is_taken(
    tmp_path: Path, pipeline: ReconstructionPipeline, photographs: list[Path]
) -> None:
    """Both faces of the second picture are hers; the nearer to the first photograph is not the mirrored, darker one."""
    both = np.hstack([np.asarray(Image.open(photographs[1])), np.asarray(Image.open(photographs[0]))])
    Image.fromarray(both).save(tmp_path / "both.png")
    person = same_person.solve_person([tmp_path / "both.png", photographs[0]], pipeline, lambda stage: None)
    assert person.views[0].landmarks[:, 0].mean() > 256
    assert person.distances[0, 1] < 0.2


def test_too_few_and_too_many_photographs(
    tmp_path: Path, pipeline: ReconstructionPipeline, photographs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"needs two photographs that show a face, and here is 1; .*c.png: no face"):
        reconstruct_person([photographs[0], photographs[2]], tmp_path / "out", pipeline)
    with pytest.raises(UserError, match="24 photographs at most, and here are 25"):
        reconstruct_person(photographs[:1] * 25, tmp_path / "out", pipeline)
    assert list(tmp_path.iterdir()) == []
    one, two = map(str, photographs[:2])
    assert main(["reconstruct", one, two]) == 2
    assert main(["reconstruct", "--same-person", one]) == 2
    assert main(["reconstruct", "--same-person", "--no-fit", one, two]) == 2
    told = capsys.readouterr().err
    assert "add --same-person" in told and "two photographs or more" in told and "leave out --no-fit" in told


@pytest.mark.slow
def test_most_strangers_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Pairs of photographs of 60 drawn people, on whom nothing was chosen, as `solve_person` compares them."""
    settings = SceneSettings(views=3, max_yaw=30.0, heads=HeadSettings(zoom=(0.72, 0.95)))
    people, encoder = SyntheticHeads(load_default(), "test", 60, 256, 31, settings), DlibEncoder()
    pipeline = load_pipeline(detector="dlib")
    features, owners = [], []
    for index in range(len(people)):
        for picture in people.person(index)["image"]:
            photo = Photo("head", "head", (picture.permute(1, 2, 0) * 255).round().byte().numpy())
            for face in pipeline.detector.detect(photo.pixels)[:1]:
                aligned = pipeline.placed(photo, face).aligned
                with torch.no_grad():
                    features.append(encoder(aligned.image, aligned.landmarks)[0])
                owners.append(index)
    distances = torch.cdist(torch.stack(features), torch.stack(features)).numpy()
    first, second = np.triu_indices(len(owners), 1)
    apart, same = distances[first, second] >= same_person.DIFFERENT, np.equal(*np.array(owners)[[first, second]])
    wrongly, missed = apart[same].mean(), 1 - apart[~same].mean()
    with capsys.disabled():
        print(f"\nwarned of {wrongly:.1%} of {same.sum()} pairs of one person")
        print(f"missed {missed:.1%} of {(~same).sum()} pairs of two people")
    assert same.sum() > 100 and wrongly < 0.2 and missed < 0.25
