"""The animation of a face under a circling light."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import LightningModule
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import nn

from experiments.__main__ import COMMANDS, main
from experiments.commands import relight
from experiments.training.checkpoint import CONFIG_KEY
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.mgcnet import MGCNet
from lightning_modules.specular import Specular
from renderers import face_renderer
from renderers.coefficients import Coefficients
from renderers.face_models.load import load_face_model
from renderers.illumination import irradiance
from renderers.specular_renderer import SPECULAR_COEFFICIENTS, SpecularRenderer
from tests.conf.parts import SmallEncoder
from tests.conf.shiny import small_shiny_model
from tests.conf.tiny import TinyModule
from tests.experiments.test_main import complaint

SIZE = 32
SMALL = ["--size", str(SIZE), "--frames", "4"]
TRUSTING = ["--trust-classes", "tests.conf"]  # of the small encoder


def read(path: Path) -> tuple[np.ndarray, dict]:
    """(N, H, W, 3) and what the file says about itself."""
    frames = []
    with Image.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")))
        # Last, for WebP tells how long a frame is shown with the frame.
        return np.stack(frames), {**picture.info, "format": picture.format}


def face() -> tuple[SpecularRenderer, Coefficients]:
    """A small one under a dim, coloured light: levels of 0.3, 0.2 and 0.1."""
    model = small_shiny_model()
    layout = model.layout(SPECULAR_COEFFICIENTS)
    coefficients = layout.split(torch.zeros(1, layout.length))
    coefficients.illumination[0, [0, 9, 18]] = torch.tensor([-0.5, -0.6, -0.7])
    return SpecularRenderer(model), coefficients


def test_three_panels_of_one_rasterization(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = face_renderer.rasterize

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(face_renderer, "rasterize", counted)
    frames = relight.draw_frames(*face(), count=6, size=48)
    assert len(calls) == 1
    above = len(relight.draw_titles(48))
    assert frames.shape == (6, above + 48, 3 * 48, 3)
    assert (frames[:, :above] == frames[0, :above]).all() and frames[0, :above].max() > 150
    background = round(255 * relight.BACKGROUND)
    diffuse, specular, both = (panel.astype(int) for panel in np.split(frames[:, above:], 3, axis=2))
    assert (frames[:, above:, 0] == background).all()
    # Edges hold some background in every panel.
    face_area = (specular != background).any(axis=(0, 3))
    inner = np.broadcast_to(binary_erosion(face_area, iterations=2), both.shape[:3])
    assert inner.mean() > 0.05 and both.max() < 255
    # Light adds up, before the gamma.
    added = 255 * ((diffuse / 255) ** 2.2 + (specular / 255) ** 2.2) ** (1 / 2.2)
    error = np.abs(added - both)[inner]
    assert error.mean() < 1 and error.max() < 15
    assert specular[inner].max() > 30
    for panel in (diffuse, specular, both):
        assert all((panel[k] != panel[k - 1]).any() for k in range(6))


def test_the_highlight_follows_the_light() -> None:
    """On a sphere-like random face the specular panel's bright side is the light's: up, right, down, left."""
    frames = relight.draw_frames(*face(), count=4, size=64)
    above = len(relight.draw_titles(64))
    specular = frames[:, above:, 64:128].astype(float).sum(axis=-1)
    specular -= specular.min(axis=0)  # what does not change
    y, x = np.mgrid[:64, :64]
    centre = np.stack([(specular * axis).sum(axis=(1, 2)) / specular.sum(axis=(1, 2)) for axis in (x, -y)], axis=1)
    moved = centre - centre.mean(axis=0)
    wanted = relight.light_path(4)[:, :2]
    assert np.sign((moved * wanted).sum(axis=1)).tolist() == [1, 1, 1, 1]
    assert moved[:, 1].argmax() == 0 and moved[:, 0].argmax() == 1


def test_the_path_is_a_circle_before_the_face() -> None:
    path = relight.light_path(24)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 12)
    np.testing.assert_allclose(path[:, 2], 12 * np.cos(np.deg2rad(40)))
    assert path[0, 1] == path[:, 1].max() and path[6, 0] == path[:, 0].max()
    np.testing.assert_allclose(path.mean(axis=0)[:2], 0, atol=1e-12)


def test_the_lamp_is_brightest_on_its_side_and_keeps_the_colour() -> None:
    _, coefficients = face()
    position = torch.tensor([[3.0, 4.0, 5.0]])
    light = relight.lamp_illumination(coefficients.illumination, position)
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(1, 400, 3, generator=generator), dim=-1)
    seen = irradiance(normals, light)[0]
    assert (normals[0, seen[:, 1].argmax()] @ position[0] / position.norm()) > 0.95
    assert seen.min() > 0
    torch.testing.assert_close(seen[:, 0] / seen[:, 1], torch.full((400,), 0.3 / 0.2))
    torch.testing.assert_close(seen[:, 2] / seen[:, 1], torch.full((400,), 0.1 / 0.2))
    brighter = relight.lamp_illumination(coefficients.illumination + 1e-3, position)
    assert (irradiance(normals, brighter)[0] > seen).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_every_format_plays_for_ever(kind: str, tmp_path: Path) -> None:
    frames = relight.draw_frames(*face(), count=4, size=SIZE)
    path = tmp_path / "animation"
    relight.save_animation(frames, path, kind)
    written, told = read(path)
    assert (told["format"], told["loop"], told["duration"]) == (kind, 0, 900)
    assert written.shape == frames.shape
    assert np.abs(written.astype(int) - frames).mean() < 3


def test_a_random_face_at_the_default_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "face.gif"
    assert main(["relight", "--out", str(path)]) == 0
    assert f"{path}: face-0 in 36 frames" in capsys.readouterr().out
    assert path.stat().st_size < 2_000_000
    frames, told = read(path)
    assert frames.shape[0] == 36 and frames.shape[2] == 3 * 192
    assert told["duration"] == 100
    assert [entry.name for entry in path.parent.iterdir()] == ["face.gif"]


def test_seeds_make_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["relight", *SMALL]) == main(["relight", *SMALL, "--out", "again.gif"]) == 0
    assert main(["relight", *SMALL, "--seed", "1"]) == 0
    first, other = Path("runs/relight/face-0.gif"), Path("runs/relight/face-1.gif")
    assert first.read_bytes() == Path("again.gif").read_bytes() != other.read_bytes()


def write_checkpoint(path: Path, module: LightningModule, init_args: dict) -> Path:
    kind = type(module)
    section = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}
    contents: dict[str, Any] = {"state_dict": module.state_dict(), CONFIG_KEY: yaml.safe_dump(section)}
    module.on_save_checkpoint(contents)
    torch.save(contents, path)
    return path


def write_face_checkpoint(path: Path, kind: type[FaceModule]) -> Path:
    """An untrained network of a paper, whose answers differ a little from the mean face."""
    torch.manual_seed(0)
    module = kind(load_face_model("default"), ResNet(18, stages=3), SmallEncoder(), SIZE)  # type: ignore[call-arg]
    nn.init.normal_(module.regressor.head.weight, std=0.01)
    parts = {
        "face_model": ("renderers.face_models.load.load_face_model", {"spec": "default"}),
        "backbone": ("lightning_modules.components.backbones.ResNet", {"depth": 18, "stages": 3}),
        "identity_encoder": ("tests.conf.parts.SmallEncoder", {}),
    }
    init_args = {name: {"class_path": path, "init_args": given} for name, (path, given) in parts.items()}
    return write_checkpoint(path, module, {**init_args, "image_size": SIZE})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_face_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", Specular)


def test_a_photographs_face_is_the_networks_answer(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Coefficients] = []
    original = relight.draw_frames

    def kept(renderer: SpecularRenderer, coefficients: Coefficients, count: int, size: int) -> np.ndarray:
        asked.append(coefficients)
        return original(renderer, coefficients, count, size)

    monkeypatch.setattr(relight, "draw_frames", kept)
    assert main(["relight", "--checkpoint", str(checkpoint), *SMALL, *TRUSTING]) == 0
    assert "astronaut" in capsys.readouterr().out
    frames, _ = read(Path("runs/relight/astronaut.gif"))
    assert frames.shape[0] == 4
    (coefficients,) = asked
    assert set(coefficients.extra) == set(SPECULAR_COEFFICIENTS)
    named = coefficients.named()
    assert all(len(value) == 1 and value.any() for value in named.values())
    # It is the whole answer that is drawn: another shininess, other highlights.
    model = SpecularRenderer(load_face_model("default"))
    duller = replace(coefficients, extra={**coefficients.extra, "shininess": coefficients.extra["shininess"] - 3})
    assert (original(model, duller, 2, SIZE) != original(model, coefficients, 2, SIZE)).any()


def test_errors_are_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 80), "gray").save("plain.png")
    Path("text.ckpt").write_text("not weights")
    write_checkpoint(Path("tiny.ckpt"), TinyModule(), {})
    write_face_checkpoint(Path("dull.ckpt"), MGCNet)
    before = {path.name for path in tmp_path.iterdir()}
    trained = ["--checkpoint", str(checkpoint), *TRUSTING]
    for arguments, said in (
        (["--frames", "1"], "--frames 1 makes no animation; use 2 to 240"),
        (["--frames", "1000"], "--frames 1000"),
        (["--size", "8"], "--size 8 makes no animation; use 32 to 512"),
        (["--seed", "-1"], "--seed -1 is negative"),
        (["--out", "face.mp4"], "face.mp4: an animation is written as .gif, .png, .webp"),
        (["--image", "plain.png"], "needs --checkpoint"),
        ([*trained, "--seed", "3"], "not allowed with"),
        ([*trained, "--image", "absent.jpg"], "absent.jpg"),
        ([*trained, "--image", "text.ckpt"], "text.ckpt"),
        ([*trained, "--image", "plain.png"], "plain.png: no face found"),
        (["--checkpoint", "none.ckpt"], "none.ckpt: no such file"),
        (["--checkpoint", "text.ckpt"], "damaged, or not a checkpoint"),
        (["--checkpoint", "tiny.ckpt", *TRUSTING], "holds a TinyModule, which knows no highlights"),
        (["--checkpoint", "dull.ckpt", *TRUSTING], "holds a MGCNet, which knows no highlights"),
        ([*SMALL, "--out", "plain.png/face.gif"], "plain.png"),
    ):
        assert said in complaint(capsys, ["relight", *arguments])
    assert {path.name for path in tmp_path.iterdir()} == before


def test_defaults_and_help() -> None:
    assert "relight" in COMMANDS
    parser = argparse.ArgumentParser()
    relight.add_arguments(parser)
    assert vars(parser.parse_args([])) == {
        "checkpoint": None, "seed": 0, "image": None, "out": None, "frames": 36, "size": 192,
        "trust_classes": [], "trust_folder": [],
    }  # fmt: skip
