"""`export --onnx`: ONNX Runtime answers what the network does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from datamodules.preparation.alignment import model_template
from experiments import docs
from experiments.__main__ import main
from experiments.training.checkpoint import load_module
from experiments.training.shipped_model import load_default_model
from experiments.training.stored_module import Trust
from lightning_modules.base import FaceModule
from lightning_modules.specular import Specular
from renderers.face_models.default.model import load_default
from tests.conf.tiny import TinyModule
from tests.experiments.commands.test_relight import SIZE, TRUSTING, write_checkpoint, write_face_checkpoint

PAGE = Path(str(docs.__file__)).parent / "pages" / "reconstruct.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


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


def test_the_shipped_network_is_exported_and_the_example_of_the_docs_runs_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--onnx"]) == 0
    model = load_default()
    network = load_default_model(model)
    assert network is not None
    session = onnxruntime.InferenceSession("runs/default_model.onnx")
    for count in (1, 3):
        image = torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(count))
        expected = network.answer(image).named()
        assert list(expected) == [output.name for output in session.get_outputs()]
        for name, found in zip(expected, session.run(None, {"image": image.numpy()}), strict=True):
            np.testing.assert_allclose(found, expected[name], atol=1e-4)
    points = json.loads(session.get_modelmeta().custom_metadata_map["crop_points"])
    np.testing.assert_allclose(points, model_template(model, 224), atol=0.005)
    (example,) = (block for block in BLOCKS if "onnxruntime" in block)
    assert len(example.splitlines()) <= 20
    Image.fromarray(np.asarray(astronaut())).save("me.jpg")
    alone = f"import sys\nsys.modules['torch'] = None\n{example}\nassert 'experiments' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    pose, *strongest = done.stdout.splitlines()
    assert np.abs(np.array(pose.split("[")[1].rstrip("]").split(), float)).max() < 10
    assert {line.split(":")[0] for line in strongest} >= {"mouthSmileLeft", "mouthSmileRight"}


def test_without_the_shipped_network_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.training.shipped_model.load_default_model", lambda model: None)
    assert main(["export", "--onnx", "--out", "a.onnx"]) == 2
    assert "make train-default-model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


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
