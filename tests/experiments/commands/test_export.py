"""`export --onnx`: ONNX Runtime answers what the network does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from experiments.__main__ import main
from experiments.training.checkpoint import load_module
from experiments.training.stored_module import Trust
from lightning_modules.base import FaceModule
from lightning_modules.specular import Specular
from tests.conf.tiny import TinyModule
from tests.experiments.commands.test_relight import SIZE, TRUSTING, write_checkpoint, write_face_checkpoint


def test_onnx_runtime_answers_what_the_network_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = write_face_checkpoint(Path("last.ckpt"), Specular)
    assert main(["export", "--onnx", str(checkpoint), *TRUSTING]) == 0
    assert "last.onnx" in capsys.readouterr().out
    module = load_module(checkpoint, Trust(("tests.conf",)))
    assert isinstance(module, FaceModule)
    session = onnxruntime.InferenceSession("last.onnx")
    layout = module.regressor.layout.sizes
    assert [output.name for output in session.get_outputs()] == list(layout) and "shininess" in layout
    for count in (1, 5):
        image = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))
        expected = module.answer(image).named()
        for name, found in zip(layout, session.run(None, {"image": image.numpy()}), strict=True):
            np.testing.assert_allclose(found, expected[name], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert module.face_model.fingerprint() in about["face_model"]
    assert json.loads(about["expression_names"]) == list(module.face_model.expression_names)


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Path("tiny.ckpt"), TinyModule(), {})
    for arguments, said in (
        ([], "--onnx"),
        (["--onnx", "none.ckpt"], "none.ckpt: no such file"),
        (["--onnx", "tiny.ckpt", "--out", "a.pt"], "a.pt: give a name that ends in .onnx"),
        (["--onnx", "tiny.ckpt", *TRUSTING], "holds a TinyModule, which reconstructs no faces"),
    ):
        assert main(["export", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.ckpt"]
