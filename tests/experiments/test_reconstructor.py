"""The Python interface: the README's snippet, and that a batch answers as single photographs do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from experiments import Reconstructor
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    return Reconstructor(detector="dlib", refine=False)


def test_the_readmes_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 6
    Image.fromarray(np.asarray(data.astronaut())).save(tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(snippet, names)
    face = names["face"]
    homogeneous = np.column_stack([face.vertices[face.landmark_vertices], np.ones(68)])
    u, v, w = np.array(face.camera["projection"]) @ homogeneous.T
    np.testing.assert_allclose(np.column_stack([u / w, v / w]), face.landmarks, atol=0.01)
    assert face.faces.max() == len(face.vertices) - 1 == len(face.uv) - 1
    assert face.texture.dtype == np.uint8 and face.texture.std() > 10
    assert 100 < np.ptp(face.vertices[:, 1]) < 400  # millimetres


def test_a_batch_answers_as_each_photograph_alone(reconstructor: Reconstructor) -> None:
    portrait = np.ascontiguousarray(data.astronaut()[:256, 96:352])
    pictures = [portrait, np.full((80, 80, 3), 90, np.uint8), Image.fromarray(portrait[:, ::-1].copy())]
    first, none, mirrored = reconstructor.batches(pictures, size=2)
    assert none == []
    for (face,), picture in ((first, pictures[0]), (mirrored, pictures[2])):
        alone = reconstructor(picture)
        np.testing.assert_allclose(face.vertices, alone.vertices, atol=1e-2)
        np.testing.assert_allclose(face.landmarks, alone.landmarks, atol=1e-2)
    assert np.abs(first[0].landmarks - mirrored[0].landmarks).max() > 5


def test_what_is_no_picture_is_refused(reconstructor: Reconstructor) -> None:
    with pytest.raises(UserError, match=r"must be \(H, W, 3\) uint8 sRGB, and this is \(4, 4\) float64"):
        reconstructor(np.zeros((4, 4)))
    with pytest.raises(UserError, match="no face found"):
        reconstructor(np.zeros((64, 64, 3), np.uint8))
