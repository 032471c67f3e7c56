"""`ablation`: what its rows differ in, what it measures on pictures, and that trained networks are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import synthetic
from datamodules.batch import FaceBatch, Truth
from datamodules.head_crops import HeadCrops
from datamodules.preparation.alignment import Alignment, model_template
from experiments.__main__ import main
from experiments.commands.ablation import command, network
from experiments.commands.ablation.faces import INNER_NME, NME, YAW, MeasuredFace, errors, scanned_faces
from experiments.commands.ablation.network import SupervisedFace
from experiments.commands.reconstruct.face import CROP_SIZE
from renderers.camera import default_intrinsics, euler_to_rotation, project, transform
from renderers.coefficients import Coefficients
from renderers.face_models.default.model import load_default
from renderers.face_renderer import mean_coefficients
from renderers.io.errors import UserError
from renderers.landmarks68 import JAW, MOUTH_CORNERS
from tests.conf.photographed_scans import write_person, write_points
from tests.experiments.test_main import complaint

SIZE = 32


def drawn(count: int) -> Coefficients:
    mean = mean_coefficients(load_default(), count)
    mean.identity[:] = torch.randn(mean.identity.shape, generator=torch.manual_seed(1))
    mean.angles[:, 1] = torch.linspace(-0.5, 0.7, count)
    return mean


def seen(faces: Coefficients, size: int) -> torch.Tensor:
    """(B, 68, 2) pixels, through the default camera."""
    model = load_default()
    shape = model.shape(faces.identity, faces.expression)
    posed = transform(shape, euler_to_rotation(faces.angles), faces.translation)
    return project(posed, default_intrinsics(size).expand(len(shape), -1, -1))[:, model.landmark_indices, :2]


def test_each_row_lacks_what_it_is_named_after_and_nothing_else() -> None:
    rows = {name: {"camera_effects": parts.camera_effects, **_fields(parts.heads)} for name, parts in _rows().items()}
    differing = {
        name: {field for field, value in fields.items() if value != rows["heads"].get(field)}
        for name, fields in rows.items()
        if not name.startswith(("heads", "faces"))
    }
    assert differing == {
        "without hair": {"hair"},
        "without camera effects": {"camera_effects"},
        "without backgrounds": {"backgrounds"},
        "without things": {"things"},
    }
    assert _rows()["faces"] == (None, None, True)
    assert _rows()["faces in exact crops"] == (None, None, False)
    assert all(parts.jittered for name, parts in _rows().items() if name != "faces in exact crops")


def test_exact_crops_do_not_err() -> None:
    first, second = (
        command.drawn_data(load_default(), _rows()["faces in exact crops"], command.BATCH, 0).crop for _ in range(2)
    )
    camera = default_intrinsics(SIZE).repeat(2, 1, 1)
    batch = FaceBatch(torch.rand(2, 3, SIZE, SIZE), seen(drawn(2), SIZE), torch.ones(2, 1, SIZE, SIZE), camera)
    torch.testing.assert_close(first(batch).landmarks, second(batch).landmarks)
    jittered = command.drawn_data(load_default(), _rows()["faces"], command.BATCH, 0).crop
    assert (jittered(batch).landmarks - first(batch).landmarks).abs().max() > 0.3


def _rows() -> Mapping[str, command.Ingredients]:
    return command.ingredients()


def _fields(heads: Any) -> dict[str, Any]:
    return {} if heads is None else asdict(heads)


def test_the_network_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    module, truth = SupervisedFace(load_default(), SIZE), drawn(4)
    held = Truth(module.regressor.layout.join(truth), torch.ones(4, 1, SIZE, SIZE))
    camera = default_intrinsics(SIZE).repeat(4, 1, 1)
    batch = FaceBatch(torch.rand(4, 3, SIZE, SIZE), seen(truth, SIZE), torch.ones(4, 1, SIZE, SIZE), camera, held)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    before = {name: float(term.detach()) for name, term in module.terms(batch).items()}
    for _ in range(15):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    after = {name: float(term.detach()) for name, term in module.terms(batch).items()}
    assert before["rotation"] == pytest.approx(float(truth.angles[:, 1].abs().mean()), rel=1e-3)  # from the mean face
    for name in ("reprojection", "identity", "rotation"):
        assert after[name] < 0.7 * before[name], name


def test_errors_are_those_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    module, truth = SupervisedFace(load_default(), SIZE), drawn(3)
    monkeypatch.setattr(module, "answer", lambda image: truth)
    points = seen(truth, CROP_SIZE)
    points[:, JAW] = float("nan")
    upright = Alignment(np.eye(2, 3), CROP_SIZE)
    yaws = truth.angles[:, 1].rad2deg() + torch.tensor([0.0, 4.0, -7.0])
    faces = [
        MeasuredFace("", torch.zeros(3, CROP_SIZE, CROP_SIZE), marks + torch.tensor([3.0, 4.0]) * row, upright, yaw)
        for row, (marks, yaw) in enumerate(zip(points, yaws.tolist(), strict=True))
    ]
    found = errors(module, faces)
    assert set(found) == {INNER_NME, YAW}
    assert found[YAW] == pytest.approx([0.0, 4.0, 7.0], abs=1e-3)
    inner = points[:, JAW.stop :]
    box = (inner.amax(dim=1) - inner.amin(dim=1)).prod(dim=1).sqrt()
    assert found[INNER_NME] == pytest.approx((100 * torch.tensor([0.0, 5.0, 10.0]) / box).tolist(), abs=1e-2)
    # Of the contour the jaw's far side is elsewhere in a turned face; from the front it is the model's own.
    monkeypatch.setattr(module, "answer", lambda image: mean_coefficients(load_default(), 1))
    (front,) = seen(mean_coefficients(load_default(), 1), CROP_SIZE)
    assert errors(module, [MeasuredFace("", faces[0].image, front, upright, 0.0)])[NME][0] < 2


def folder_of_pictures(folder: Path) -> np.ndarray:
    """A person of one grey picture, with the inner points of a mean face in it; (68, 2) pixels."""
    points = 30 + 1.5 * seen(mean_coefficients(load_default(), 1), 100)[0].double().numpy()
    picture = np.full((240, 240, 3), 128, np.uint8)
    write_person(folder / "her", np.zeros((3, 3)), np.array([[0, 1, 2]]), {"a": picture}, {"a": (1.0, -35.0, 2.0)})
    write_points(folder / "her" / "a.pts", points[JAW.stop :])
    return points


def test_pictures_of_scans_are_cropped_by_their_own_points(tmp_path: Path) -> None:
    points = folder_of_pictures(tmp_path)
    template = model_template(load_default(), CROP_SIZE)
    (face,) = scanned_faces(tmp_path, template)
    assert (face.yaw, face.name) == (-35.0, "her/a.png")
    np.testing.assert_allclose(face.landmarks[list(MOUTH_CORNERS)], template[3:], atol=0.05)
    np.testing.assert_allclose(face.landmarks[JAW.stop :], face.alignment.to_crop(points[JAW.stop :]), atol=0.01)
    assert face.landmarks[JAW].isnan().all()
    (tmp_path / "her" / "poses.txt").unlink()
    with pytest.raises(UserError, match=r"a\.png: needs a line in poses\.txt"):
        list(scanned_faces(tmp_path, template))


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a command with two rows of two small networks each, and one picture."""
    monkeypatch.setattr(synthetic, "cache_dir", lambda: tmp_path / "cache")  # of faces; the face model's is kept
    for name, value in {"IMAGE_SIZE": SIZE, "PICTURE_SIZE": SIZE, "BATCH": 2}.items():
        monkeypatch.setattr(command, name, value)
    folder_of_pictures(tmp_path / "scans")
    folders = ["--scans", str(tmp_path / "scans"), "--runs_dir", str(tmp_path / "runs")]
    return ["ablation", *folders, "--people", "4", "--steps", "2", "--seeds", "2", "--rows", "faces", "heads"]


def results(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "runs/ablation/results.json").read_text())["rows"]["scans"]


def test_networks_that_are_there_are_not_trained_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def trained(model: Any, data: HeadCrops, image_size: int, steps: int, seed: int) -> SupervisedFace:
        """A network that answers a yaw of 10 degrees for the heads, and one more for each seed."""
        asked.append((data.settings.heads is not None, steps, seed))
        module = SupervisedFace(model, image_size)
        answer = mean_coefficients(model, 1)
        answer.angles[:, 1] = np.radians(10 * (data.settings.heads is not None) + seed)
        with torch.no_grad():
            module.regressor.head.bias.copy_(module.regressor.layout.join(answer)[0] / module.regressor.scale)
        return module

    monkeypatch.setattr(network, "trained", trained)
    assert main(words) == 0
    assert asked == [(False, 2, 0), (True, 2, 0), (False, 2, 1), (True, 2, 1)]
    figures = {row: [errors["yaw_error_deg"] for errors in of_row] for row, of_row in results(tmp_path).items()}
    assert figures == {  # of -35 degrees
        "mean face": [[pytest.approx(35)]],
        "faces": [[pytest.approx(35, abs=1e-3)], [pytest.approx(36, abs=1e-3)]],
        "heads": [[pytest.approx(45, abs=1e-3)], [pytest.approx(46, abs=1e-3)]],
    }
    assert results(tmp_path)["mean face"][0]["inner_nme"][0] < 0.1  # it shows the mean face
    printed = capsys.readouterr().out
    assert "1 face, 2 networks a row" in printed and "35.5 ± 0.7 (-10.0 to -10.0)" in printed
    kept = sorted((tmp_path / "runs/ablation").glob("faces*.safetensors"))
    kept[1].unlink()
    assert main(words) == 0
    assert asked[4:] == [(False, 2, 1)]
    assert main([*words[:-2], "heads"]) == 0
    assert set(results(tmp_path)) == {"mean face", "heads"} and len(asked) == 5
    kept[0].write_bytes(kept[0].read_bytes()[:1000])
    assert kept[0].name in complaint(capsys, words)


@pytest.mark.slow
def test_the_command_trains_on_what_it_draws(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    figures = [tuple(errors["inner_nme"]) for of_row in results(tmp_path).values() for errors in of_row]
    assert len(figures) == len(set(figures)) == 5  # every row and seed is another network


def test_folders_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--photos FOLDER" in complaint(capsys, ["ablation"])
    (tmp_path / "file").touch()
    assert "not a folder" in complaint(capsys, ["ablation", "--photos", str(tmp_path / "file")])
