"""The demo page: what its buttons and sliders do, and the page itself in a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from skimage import data

from experiments import Reconstructor
from experiments.__main__ import main
from experiments.commands.demo.relighting import MOVES, Light
from experiments.commands.demo.studio import Result, Studio
from renderers.io.errors import UserError
from tests.conf.browser import chromium, hosts_asked

ROOT = Path(__file__).parents[3]
WAIT = 60.0  # seconds


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Reconstructor(detector="dlib", refine=False), tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("photographs") / "me <b>.png"
    Image.fromarray(np.ascontiguousarray(data.astronaut()[:256, 96:352])).save(path)
    return path


@pytest.fixture(scope="module")
def result(studio: Studio, portrait: Path) -> Result:
    return studio.reconstruct([portrait])


def brightness(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Of the left, right, upper and lower half of the face, which is what is not the light ground."""
    face = (np.abs(picture.astype(float) - picture[0, 0]) > 12).any(axis=2)
    rows, columns = np.nonzero(face)
    gray, middle_row, middle = picture.mean(axis=2), np.median(rows), np.median(columns)
    across, down = np.meshgrid(np.arange(face.shape[1]), np.arange(face.shape[0]))
    halves = across < middle, across > middle, down < middle_row, down > middle_row
    left, right, upper, lower = (float(gray[face & half].mean()) for half in halves)
    return left, right, upper, lower


class TestFunctions:
    def test_the_four_views_show_one_face(self, result: Result) -> None:
        (face,) = result.faces
        photograph, overlay, shape = face.pictures
        assert photograph.shape == overlay.shape == shape.shape == (512, 512, 3)
        changed = (photograph != overlay).any(axis=2)
        assert 0.15 < changed.mean() < 0.8
        assert (shape == 255).all(axis=2)[~changed].mean() > 0.95  # white where there is no face
        scene = trimesh.load_scene(face.downloads[0])
        assert scene.extents is not None and 0.1 < scene.extents[1] < 0.4  # metres
        assert result.message == "1 face" and result.warnings == []

    def test_downloads_are_complete_and_name_no_folder_of_the_machine(self, result: Result) -> None:
        mesh, archive, record = result.faces[0].downloads
        assert [path.name for path in (mesh, archive, record)] == ["mesh.glb", "mesh_obj.zip", "reconstruction.json"]
        with zipfile.ZipFile(archive) as packed:
            assert sorted(packed.namelist()) == ["mesh.mtl", "mesh.obj", "mesh.png"]
            assert b"map_Kd mesh.png" in packed.read("mesh.mtl")
        assert json.loads(record.read_text())["source"] == "me <b>.png"

    def test_without_a_lamp_the_picture_keeps_the_photographs_colours(self, result: Result) -> None:
        """Where the face is drawn as it was fitted, its texels are multiplied by 1."""
        (face,) = result.faces
        photograph, drawn = face.pictures[0], face.painter.draw()
        side = len(drawn)
        small = np.asarray(Image.fromarray(photograph).resize((side, side), Image.Resampling.BOX), float)
        cheeks = np.s_[side * 9 // 20 : side * 11 // 20, side * 3 // 10 : side * 7 // 10]
        assert np.abs(small[cheeks].mean(axis=(0, 1)) - drawn[cheeks].mean(axis=(0, 1))).max() < 12

    def test_the_lamp_lights_the_side_on_which_it_stands(self, result: Result) -> None:
        painter = result.faces[0].painter
        left, right = (brightness(painter.draw([], Light(1, aside, 0))) for aside in (-70, 70))
        assert left[0] > 1.15 * left[1] and right[1] > 1.15 * right[0]
        above, below = (brightness(painter.draw([], Light(1, 0, up))) for up in (60, -60))
        assert above[2] / above[3] > 1.05 * below[2] / below[3]

    def test_each_slider_moves_its_part_of_the_face(self, result: Result) -> None:
        painter = result.faces[0].painter
        still, rows = painter.draw().astype(float), {}
        assert [move.label for move in painter.moves] == list(MOVES)
        for number, label in enumerate(MOVES):
            amounts = [0.0] * len(MOVES)
            amounts[number] = 0.8
            change = np.abs(painter.draw(amounts) - still).sum(axis=(1, 2))
            rows[label] = float((change * np.arange(len(change))).sum() / change.sum()) / len(change)
        assert rows["Raise the brows"] < rows["Close the eyes"] < rows["Smile"] < rows["Open the mouth"]

    def test_two_pictures_a_second(self, result: Result) -> None:
        painter = result.faces[0].painter
        painter.draw()
        start = time.process_time()
        for aside in range(4):
            painter.draw([], Light(1, aside, 0))
        assert time.process_time() - start < 2.0

    def test_bad_input_is_told_by_the_files_name_alone(self, studio: Studio, tmp_path: Path) -> None:
        wall, text = tmp_path / "wall.png", tmp_path / "notes.png"
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(wall)
        text.write_text("no picture")
        for paths, message in (
            ([], "drop a photograph first"),
            ([wall], r"^wall\.png: no face found"),
            ([text], r"^notes\.png: not an image"),
            ([wall, text], "needs two photographs that show a face"),
        ):
            with pytest.raises(UserError, match=message) as caught:
                studio.reconstruct(paths)
            assert str(tmp_path) not in str(caught.value)


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--port", "0"], "choose a number from 1 to 65535"),
            (["--checkpoint", "no.ckpt"], "no.ckpt"),
        ],
    )
    def test_mistakes_are_told_before_anything_is_loaded(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["demo", *words]) == 2
        assert message in capsys.readouterr().err


def wait_for(found: Callable[[], Any]) -> Any:
    """What `found` answers as soon as it answers anything."""
    end = time.monotonic() + WAIT
    while not (answer := found()):
        assert time.monotonic() < end, "the page did not answer"
        time.sleep(0.2)
    return answer


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path: Path, portrait: Path) -> None:
    """The astronaut is uploaded and lit anew; nobody but this machine is asked for anything; then Ctrl-C."""
    pytest.importorskip("gradio")
    wall = tmp_path / "wall.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(wall)
    with chromium(1280, 900) as driver:
        environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
        command = [sys.executable, "-m", "experiments", "demo"]
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            assert address.startswith("http://127.0.0.1:")
            hosts_asked(driver)
            driver.get(address)

            def one(selector: str) -> Any:
                elements = driver.find_elements("css selector", selector)
                return elements[0] if elements else None

            def press_with(path: Path) -> None:
                wait_for(lambda: one("#photographs input[type=file]")).send_keys(str(path))
                wait_for(lambda: one("#photographs .grid-container img"))
                one("#make").click()

            press_with(wall)
            wait_for(lambda: "wall.png: no face found" in one("#status").text)
            driver.refresh()
            press_with(portrait)
            wait_for(lambda: one("#status").text == "1 face")
            for view in ("photo", "overlay", "shape", "relit"):
                wait_for(
                    lambda view=view: one(f"#{view} img") and one(f"#{view} img").get_property("naturalWidth") >= 448
                )
            driver.execute_script("arguments[0].scrollIntoView()", one("#mesh"))
            wait_for(lambda: one("#mesh canvas"))
            assert [a.get_attribute("download") for a in driver.find_elements("css selector", "#downloads a")] == [
                "mesh.glb", "mesh_obj.zip", "reconstruction.json",
            ]  # fmt: skip
            before = one("#relit img").get_attribute("src")
            one("#lamp input[type=range]").send_keys("\ue014")  # the right arrow
            wait_for(lambda: one("#relit img").get_attribute("src") != before)
            assert hosts_asked(driver) == {address.removeprefix("http://").rstrip("/")}
        finally:
            server.send_signal(2)
            assert server.wait(30) in (0, 130)
