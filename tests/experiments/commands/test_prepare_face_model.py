"""`prepare face-model`: what it writes loads to the bit, what it tells is true, and nothing is written on an error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from experiments.__main__ import main
from experiments.commands.prepare import face_model
from experiments.commands.prepare.face_model import PUBLISHED, findings, identity_motion, prepare_face_model, read_kind
from renderers.face_models.base import MorphableModel
from renderers.face_models.load import load_face_model
from renderers.io.errors import UserError
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.fake_bfm_h5 import ALBEDO, fake_albedo, fake_bfm_h5
from tests.conf.fake_bfm_raw import write_fake_bfm_raw
from tests.conf.fake_flame import fake_flame, write_fake_flame
from tests.conf.fake_ict import fake_ict, write_fake_ict
from tests.conf.scenes import small_face_model
from tests.conf.write_hdf5 import write_hdf5


def same(one: MorphableModel, other: MorphableModel) -> bool:
    buffers = dict(other.named_buffers())
    return all(torch.equal(values, buffers[name]) for name, values in one.named_buffers())


def test_bfm2009_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = write_fake_bfm_raw(tmp_path / "raw")
    assert main(["prepare", "face-model", "bfm2009", str(raw)]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "bfm2009: 800 vertices," in told and "none of the published files" in told
    assert "80 identity modes (standard deviations), 64 expressions (standard deviations), 80 albedo modes" in told
    assert "licence" in told and "FaceWarehouse" in told
    out = tmp_path / "data" / "face_model_bfm2009.npz"
    assert same(load_face_model(str(out)), load_face_model(str(raw)))
    picture = cv2.imread(str(out.with_suffix(".png")))
    assert picture is not None and picture.shape == (448, 896, 3)
    for row in range(2):
        for column in range(4):
            assert picture[224 * row :, 224 * column :][:224, :224].std() > 20
    # The second cell is the mean turned, the third a person: no two alike.
    assert not np.array_equal(picture[:224, 224:448], picture[:224, 448:672])
    assert sorted(path.name for path in out.parent.iterdir()) == ["face_model_bfm2009.npz", "face_model_bfm2009.png"]


def test_bfm2017_with_albedo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = fake_bfm_h5(seed=3)
    model = write_hdf5(tmp_path / "model2017-1_face12_nomouth.h5", fake.arrays)
    albedo = write_hdf5(tmp_path / "albedo.h5", fake_albedo(len(fake.arrays["shape/model/mean"]) // 3))
    out = tmp_path / "out" / "mine.npz"
    arguments = [str(model), "--albedo", str(albedo), "--out", str(out)]
    assert main(["prepare", "face-model", "bfm2017", *arguments]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"{ALBEDO} albedo modes (linear" in told and "a specular albedo" in told and "AlbedoMM's licence" in told
    assert same(load_face_model(str(out)), load_face_model(str(model), albedo=str(albedo)))


def test_findings_of_the_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_face_model()
    count = len(model.faces)
    monkeypatch.setitem(PUBLISHED, "bfm2009", {(800, count): "the front model"})
    lines = findings("bfm2009", model)
    assert lines[0] == f"bfm2009: 800 vertices, {count} faces, as published (the front model)"
    points = 100 * model.mean_shape.numpy()
    assert f"mean face {np.ptp(points[:, 0]):.0f} x {np.ptp(points[:, 1]):.0f} x" in lines[2]


def test_identity_motion_is_what_random_people_show() -> None:
    model = small_face_model()
    drawn = torch.randn(4000, model.identity_size, generator=torch.Generator().manual_seed(0))
    moved = torch.einsum("vck,bk->bvc", model.identity_basis[::40], drawn)
    expected = 100 * moved.square().sum(dim=-1).mean(dim=0)
    own = 100 * model.identity_basis[::40].square().sum(dim=(1, 2))
    torch.testing.assert_close(own, expected, rtol=0.15, atol=0)
    assert identity_motion(model) == pytest.approx(
        100 * float(model.identity_basis.square().sum(dim=(1, 2)).mean()) ** 0.5, rel=1e-6
    )


def test_another_kind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = write_fake_bfm(tmp_path / "BFM_model_front.mat")
    with pytest.raises(UserError, match="not of the kind bfm2017, which is model2017"):
        read_kind("bfm2017", front)
    with pytest.raises(UserError, match="not of the kind ict"):
        read_kind("ict", front)
    raw = write_fake_bfm_raw(tmp_path / "raw")
    with pytest.raises(UserError, match="this is bfm2009, not ict"):
        read_kind("ict", raw)
    with pytest.raises(UserError, match="no such file or folder; bfm2019 is model2019"):
        read_kind("bfm2019", tmp_path / "none.h5")
    with pytest.raises(UserError, match="go with bfm2017 and bfm2019 alone"):
        read_kind("bfm2009", front, landmarks=tmp_path / "points.txt")
    # Two croppings of the same layout are told apart by their published counts.
    fake = fake_bfm_h5(seed=3)
    path = write_hdf5(tmp_path / "model.h5", fake.arrays)
    size = (fake.arrays["shape/representer/points"].shape[1], fake.arrays["shape/representer/cells"].shape[1])
    monkeypatch.setitem(PUBLISHED, "bfm2019", {size: "face12"})
    with pytest.raises(UserError, match="this is bfm2019, not bfm2017"):
        read_kind("bfm2017", path)


def test_an_error_leaves_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.npz"
    front = write_fake_bfm(tmp_path / "BFM_model_front.mat")
    prepare_face_model("bfm2009", front, out)
    before = out.read_bytes()
    front.write_bytes(front.read_bytes()[:9000])
    assert main(["prepare", "face-model", "bfm2009", str(front), "--out", str(out)]) == 2
    assert "cut short" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main(["prepare", "face-model", "bfm2009", str(front), "--out", str(tmp_path / "model.mat")]) == 2
    assert "name a file that ends with .npz" in capsys.readouterr().err
    names = {"model.npz", "model.png", "BFM_model_front.mat"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_kind_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "face-model", "smpl", "x"]) == 2
    assert "bfm2009" in capsys.readouterr().err


def test_flame_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_fake_flame(tmp_path / "flame", fake_flame())
    out = tmp_path / "mine.npz"
    assert main(["prepare", "face-model", "flame", str(folder), "--out", str(out)]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "flame: " in told and "no specular albedo" in told and "FLAME's licence" in told
    assert same(load_face_model(str(out)), load_face_model(str(folder)))


def as_repository(folder: Path) -> str:
    """The address of a git repository of what lies in the folder, and of a file that nobody asks for."""
    (folder / "Scripts").mkdir()
    (folder / "Scripts" / "large.txt").write_text("not fetched")
    commands = ["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"], ["config", "uploadpack.allowFilter", "1"]
    for words in commands:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True)
    return folder.as_uri()


def test_one_folder_of_a_repository_is_fetched_once(tmp_path: Path) -> None:
    (tmp_path / "source" / "FaceXModel").mkdir(parents=True)
    (tmp_path / "source" / "FaceXModel" / "mesh.obj").write_text("v 0 0 0")
    address, place = as_repository(tmp_path / "source"), tmp_path / "data" / "clone"
    assert face_model.fetched(address, place, "FaceXModel") == place / "FaceXModel"
    assert sorted(path.name for path in place.iterdir()) == [".git", "FaceXModel"]
    assert (place / "FaceXModel" / "mesh.obj").read_text() == "v 0 0 0"
    assert face_model.fetched("file:///nowhere", place, "FaceXModel") == place / "FaceXModel"
    with pytest.raises(UserError, match="holds no folder Other"):
        face_model.fetched(address, tmp_path / "data" / "other", "Other")
    assert [path.name for path in place.parent.iterdir()] == ["clone"]


@pytest.mark.slow
def test_ict_is_prepared_from_a_repository_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "repository"
    write_fake_ict(repository / "FaceXModel", fake_ict())
    monkeypatch.setattr(face_model, "ICT_REPOSITORY", as_repository(repository))
    assert main(["prepare", "face-model", "ict"]) == 0
    made = load_face_model("data/face_model_ict.npz")
    assert main(["prepare", "face-model", "ict", str(repository), "--out", "again.npz"]) == 0
    assert same(made, load_face_model("again.npz"))
    assert same(made, load_face_model(str(repository / "FaceXModel")))


def test_what_cannot_be_fetched_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(face_model, "ICT_REPOSITORY", f"file://{tmp_path}/nowhere")
    assert main(["prepare", "face-model", "ict"]) == 2
    assert "cannot be fetched (" in (told := capsys.readouterr().err) and "make face-model-ict DIR=FOLDER" in told
    assert list(Path("data").iterdir()) == []
    assert main(["prepare", "face-model", "flame"]) == 2
    assert "give the PATH of flame" in capsys.readouterr().err
    with pytest.raises(UserError, match="no such face model; make it: make face-model-ict"):
        load_face_model("data/face_model_ict.npz")
