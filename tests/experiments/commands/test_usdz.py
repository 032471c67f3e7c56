"""`export --usdz`: USD's own library reads the file back and finds no fault."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.commands.reconstruct.export import FaceMesh, write_obj

VERTICES = np.array([[0.0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 100, 30]])  # millimetres


def write_face(folder: Path) -> None:
    folder.mkdir()
    normals, uv = np.tile([0.0, 0, 1], (4, 1)), np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    texture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    write_obj(FaceMesh(VERTICES, normals, np.array([[0, 1, 2], [0, 2, 3]]), uv, texture), folder)


def test_usd_reads_the_file_and_finds_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pxr = pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import Usd, UsdGeom, UsdShade, UsdValidation

    assert pxr
    write_face(tmp_path / "me")
    assert main(["export", "--usdz", str(tmp_path / "me")]) == 0
    assert "me.usdz" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "me").iterdir()) == ["mesh.mtl", "mesh.obj", "mesh.png"]
    stage = Usd.Stage.Open(str(tmp_path / "me.usdz"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdGeom.GetStageUpAxis(stage) == "Y"
    body = UsdGeom.Mesh(stage.GetDefaultPrim().GetChild("mesh"))
    np.testing.assert_allclose(body.GetPointsAttr().Get(), VERTICES / 1000, atol=1e-7)
    assert list(body.GetFaceVertexIndicesAttr().Get()) == [0, 1, 2, 0, 2, 3]
    material, _ = UsdShade.MaterialBindingAPI(body).ComputeBoundMaterial()
    surface = material.ComputeSurfaceSource()[0]
    picture = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSources()[0][0].source.GetPrim())
    assert picture.GetInput("file").Get().resolvedPath.endswith("me.usdz[mesh.png]")
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert any("UsdzPackage" in validator.GetMetadata().name for validator in validators)
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert not [error.GetErrorAsString() for error in errors]


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pxr", reason="usd-core is not installed")
    write_face(tmp_path / "me")
    (tmp_path / "me" / "mesh.png").unlink()
    for folder, said in (("me", "no mesh.png lies beside it"), ("nobody", "No such file")):
        assert main(["export", "--usdz", str(tmp_path / folder)]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["me"]


def test_without_the_library_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    assert main(["export", "--usdz", str(tmp_path)]) == 2
    assert "pip install usd-core" in capsys.readouterr().err
