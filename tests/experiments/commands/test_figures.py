"""`figures`: every paper's pictures, and what they show against the exact truth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from datamodules.batch import MultiViewBatch
from experiments.__main__ import main
from experiments.commands.figures import command, finegrained, mgcnet, people, rogue, self_augmentation, specular
from experiments.commands.figures.sheet import GAP, PANEL, Sheet, broken, draw_sheet, layout
from experiments.training.building import build
from experiments.training.checkpoint import CONFIG_KEY
from lightning_modules.base import FaceModule
from lightning_modules.finegrained import Finegrained
from lightning_modules.self_augmentation import SelfAugmentation
from renderers.color import decode
from renderers.face_renderer import FaceRenderer
from renderers.io.errors import UserError
from renderers.landmarks68 import LANDMARKS
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.parts import Told
from tests.conf.scenes import exact_batch, small_face_model
from tests.conf.tiny_papers import PAPERS, configuration, write_configuration
from tests.experiments.test_main import complaint

TRUSTING = ["--trust-classes", "tests.conf"]
PEOPLE = 2
SHEETS = {  # name: (columns, rows) of two people
    "mgcnet": {"epipolar": (3, 4), "synthesis": (7, 4), "poses": (5, 6)},
    "rogue": {"occlusions": (3, 22), "colors": (8, 3)},
    "self_augmentation": {"textures": (6, 2), "hidden": (5, 2)},
    "specular": {"highlights": (8, 2)},
    "finegrained": {"detail": (6, 2), "relit": (7, 2)},
}
MODULES = {
    "mgcnet": mgcnet,
    "rogue": rogue,
    "self_augmentation": self_augmentation,
    "specular": specular,
    "finegrained": finegrained,
}


def network(paper: str, folder: Path, config: dict[str, Any] | None = None) -> FaceModule:
    """An untrained network of a paper, whose answers differ a little from the mean face."""
    torch.manual_seed(0)
    path = write_configuration(folder / f"{paper}.yaml", config or configuration(paper))
    module, _ = build(["--config", path], lambda config: None)
    nn.init.normal_(module.regressor.head.weight, std=0.01)  # type: ignore[union-attr]
    return module.eval()


def write_checkpoint(path: Path, config: dict[str, Any], module: FaceModule) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {"state_dict": module.state_dict(), CONFIG_KEY: yaml.safe_dump(config["model"])}
    module.on_save_checkpoint(contents)
    torch.save(contents, path)
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each paper, in a run's folder."""
    paths = {}
    for paper in PAPERS:
        folder = tmp_path_factory.mktemp(paper)
        path = folder / f"runs/{paper}/first/checkpoints/last.ckpt"
        paths[paper] = write_checkpoint(path, configuration(paper), network(paper, folder))
        (path.parents[1] / "config.yaml").write_text("paper: " + paper)
    return paths


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rogue, "MEASURED", 3)
    monkeypatch.setattr(rogue, "GROWTH", (0.0, 0.7))


@pytest.mark.parametrize("paper", PAPERS)
def test_every_figure_is_written_where_the_newest_run_lies(
    paper: str, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoints[paper].parents[4]
    monkeypatch.chdir(folder)
    drawn: dict[str, Sheet] = {}

    def kept(sheet: Sheet) -> Image.Image:
        drawn[sheet.name] = sheet
        return draw_sheet(sheet)

    monkeypatch.setattr(MODULES[paper], "draw_sheet", kept)
    assert main(["figures", paper, "--people", str(PEOPLE), *TRUSTING]) == 0
    run = Path("runs") / paper / "first"
    names = [*SHEETS[paper], *(["growth"] if paper == "rogue" else [])]
    assert sorted(path.name for path in (run / "figures").iterdir()) == sorted(f"{name}.png" for name in names)
    told = capsys.readouterr().out
    assert all(str(run / "figures" / f"{name}.png") in told for name in names)
    assert f"experiments/{paper}/default.yaml, seed" in told and str(run / "checkpoints/last.ckpt") in told
    for name, (columns, rows) in SHEETS[paper].items():
        sheet = drawn[name]
        assert (len(sheet.columns), sheet.count) == (columns, rows), name
        assert len(sheet.rows) == rows
        assert all(len(panels) == rows for panels in sheet.columns.values())
        assert all(len(lines) == rows for lines in sheet.notes.values()) and sheet.notes.keys() <= sheet.columns.keys()
        assert not any(panels.isnan().any() for panels in sheet.columns.values())
        with Image.open(run / "figures" / f"{name}.png") as picture:
            width, height = picture.size
        per_block = rows // sheet.blocks
        assert width > sheet.blocks * columns * PANEL and height > per_block * PANEL
        assert width < sheet.blocks * (columns * (PANEL + GAP) + 150) and height < per_block * (PANEL + 30) + 80


def test_the_other_people_are_others(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["figures", "specular", "--checkpoint", str(checkpoints["specular"]), "--people", "1", *TRUSTING]
    for name, options in (("first", []), ("again", []), ("second", ["--first", "1"])):
        assert main([*arguments, "--output", str(tmp_path / name), *options]) == 0
    first, again, second = ((tmp_path / name / "highlights.png").read_bytes() for name in ("first", "again", "second"))
    assert first == again != second


def test_two_networks_stand_side_by_side(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Sheet] = {}
    lines: list[int] = []
    monkeypatch.setattr(rogue, "draw_sheet", lambda sheet: drawn.update({sheet.name: sheet}) or draw_sheet(sheet))
    original = rogue.draw_growth
    monkeypatch.setattr(rogue, "draw_growth", lambda found: lines.append(len(found)) or original(found))
    given = ["--checkpoint", str(checkpoints["rogue"]), "--compare", str(checkpoints["rogue"])]
    assert main(["figures", "rogue", *given, "--output", str(tmp_path), *TRUSTING]) == 0
    assert len(drawn["occlusions"].columns) == 5 and len(drawn["colors"].columns) == 12 and lines == [2]
    columns = drawn["occlusions"].columns
    assert torch.equal(columns["shape, ROGUE"], columns["shape, compared"])


def test_mistakes_are_told(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    mgc, specular_one = str(checkpoints["mgcnet"]), str(checkpoints["specular"])
    for arguments, said in (
        (["mgcnet"], "no run in runs/mgcnet: train one by `make train-mgcnet`, or give --checkpoint FILE"),
        (["none"], "choose from"),
        (["mgcnet", "--checkpoint", "absent.ckpt"], "absent.ckpt: no such file"),
        (["mgcnet", "--checkpoint", "file"], "damaged, or not a checkpoint"),
        (["mgcnet", "--checkpoint", specular_one, *TRUSTING], "holds a Specular, and mgcnet's figures are drawn from"),
        (["mgcnet", "--checkpoint", mgc, "--output", "file", *TRUSTING], "file is a file; name a folder"),
        (["mgcnet", "--checkpoint", mgc, "--output", "file/inner", *TRUSTING], "file is a file; name a folder"),
        (["mgcnet", "--checkpoint", mgc, "--compare", mgc], "mgcnet has no figure of two networks"),
        (["rogue", "--checkpoint", str(checkpoints["rogue"]), "--compare", mgc, *TRUSTING], "holds a MGCNet"),
        (["mgcnet", "--checkpoint", mgc, "--people", "0"], "'0' is not a whole number from 1 to 20"),
    ):
        assert said in complaint(capsys, ["figures", *arguments])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_networks_of_two_face_models_are_not_compared(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configuration("rogue")
    spec = str(write_fake_bfm(tmp_path / "model.mat", seed=1))
    for part in (config["model"], config["data"]["init_args"]["data"]):
        part["init_args"]["face_model"] = {
            "class_path": "renderers.face_models.load.load_face_model", "init_args": {"spec": spec},
        }  # fmt: skip
    other = write_checkpoint(tmp_path / "other.ckpt", config, network("rogue", tmp_path, config))
    given = ["--checkpoint", str(checkpoints["rogue"]), "--compare", str(other), "--output", str(tmp_path / "out")]
    given += ["--trust-folder", str(tmp_path)]
    assert "made for another face model" in complaint(capsys, ["figures", "rogue", *given, *TRUSTING])
    assert not (tmp_path / "out").exists()


def test_a_face_model_that_the_scenes_cannot_be_drawn_with_is_refused(tmp_path: Path) -> None:
    module = network("rogue", tmp_path)
    with pytest.raises(UserError, match="no specular albedo"):
        people.people_of("specular", module)


def test_the_newest_whole_checkpoint_is_taken(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("damaged", "new", "old")):
        path = Path(f"runs/mgcnet/{name}/checkpoints/last.ckpt")
        path.parent.mkdir(parents=True)
        content = checkpoints["mgcnet"].read_bytes()
        path.write_bytes(content[: len(content) // 2] if name == "damaged" else content)
        os.utime(path, (1000 - age, 1000 - age))
    assert command.newest_checkpoint("mgcnet") == Path("runs/mgcnet/new/checkpoints/last.ckpt")
    assert "damaged" in capsys.readouterr().out


def test_a_sheets_panels_stand_below_their_headings() -> None:
    shades = torch.arange(8) / 10 + 0.1
    panels = {f"column {c}": shades[c::2, None, None, None].expand(-1, 3, 6, 6).clone() for c in range(2)}
    sheet = Sheet("x", panels, [f"row {r}" for r in range(4)], {"column 1": ["a", "b", "c", "d"]}, blocks=2)
    place, picture = layout(sheet), np.asarray(draw_sheet(sheet)).astype(int)
    block = picture.shape[1] // 2
    for index, shade in enumerate(shades):
        row, column = divmod(index, 2)
        x, y = place.corner(row % 2, column)
        x += block * (row // 2)
        panel = picture[y : y + PANEL, x : x + PANEL]
        assert panel.shape == (PANEL, PANEL, 3) and np.abs(panel - 255 * float(shade)).max() < 1
        below = picture[y + PANEL + 1 : y + place.row, x : x + PANEL]
        assert (below.min() < 128) == (column == 1), "a note stands below its panel"
        above = picture[: place.above, x : x + PANEL]
        assert above.min() < 128 and (above[[0, -1]] == 255).all(), "a heading is there, and not cut off"
        beside = picture[y : y + PANEL, x - column * (PANEL + GAP) - place.left :][:, : place.left]
        assert beside.min() < 128 and (beside[:, [0, -1]] == 255).all()


def test_long_words_stay_whole_and_lines_are_kept() -> None:
    assert broken("one two\nthree", 1000) == ["one two", "three"]
    assert broken("one two", 10) == ["one", "two"]
    assert broken("", 10) == [""]


def scene() -> tuple[MultiViewBatch, FaceRenderer]:
    batch, _ = exact_batch(small_face_model(), 2, 48)
    return batch, FaceRenderer(small_face_model(), 48)


def test_true_epipolar_lines_pass_through_the_true_landmarks() -> None:
    batch, renderer = scene()
    true = renderer(people.true_coefficients(small_face_model(), batch), batch.intrinsics)
    target, source = batch.pairs()
    wrong = people.true_coefficients(small_face_model(), batch)
    wrong.angles[:, 0] += torch.linspace(-0.8, 0.8, len(wrong.angles))
    off = {}
    for name, drawn in (("true", true), ("wrong", renderer(wrong, batch.intrinsics))):
        pairs = mgcnet.ViewPairs.of(batch, drawn)
        found = mgcnet.epipolar_lines(batch.landmarks[target], *pairs.cameras, pairs.rotation, pairs.translation)
        assert found.shape == (4, LANDMARKS, 3)
        off[name] = mgcnet.distances(found, batch.landmarks[source])
    assert off["true"].max() < 0.05  # pixels
    assert off["wrong"].mean() > 0.5
    sheet = mgcnet.epipolar_sheet(batch, true, true)
    assert torch.equal(sheet.columns["source, true lines"], sheet.columns["source, lines found"])
    # A line is drawn through the dot, whose neighbourhood has its colour.
    plain = mgcnet._marked(batch.image[source], batch.landmarks[source][:, list(mgcnet.SHOWN)])
    changed = (sheet.columns["source, true lines"] != plain).any(dim=1)
    scale = people.LARGE / 48
    x, y = (scale * batch.landmarks[source][0, mgcnet.SHOWN[2]]).round().long().tolist()
    near = changed[0, y - 12 : y + 13, x - 12 : x + 13]
    assert near[[0, -1]].any() or near[:, [0, -1]].any()


def test_a_view_synthesized_by_the_truth_is_nearer_than_its_source() -> None:
    batch, renderer = scene()
    true = renderer(people.true_coefficients(small_face_model(), batch), batch.intrinsics)
    sheet = mgcnet.synthesis_sheet(batch, true, true)
    gaps = {name: [float(line.split()[-1]) for line in lines] for name, lines in sheet.notes.items()}
    assert gaps["synthesized, true face"] == gaps["synthesized, face found"]
    assert all(made < 0.7 * given for made, given in zip(gaps["synthesized, true face"], gaps["source"], strict=True))
    difference = f"difference x {mgcnet.GAIN:g}, "
    assert sheet.columns[f"{difference}covisible"].mean() < sheet.columns[f"{difference}whole face"].mean()


def test_the_truth_has_no_error_however_much_is_hidden(tmp_path: Path) -> None:
    module = network("rogue", tmp_path)
    batch = people.Request(module, people.people_of("rogue", module)).batch(3)
    before = rogue.grown_errors(module, batch)
    module.regressor = Told(people.true_coefficients(module.face_model, batch))  # type: ignore[assignment]
    after = rogue.grown_errors(module, batch)
    for name in ("size", "color"):
        assert min(value.mean for value in before[name]) > 1e-2
        assert max(value.high for value in after[name]) < 1e-4
        assert before[name][0] != before[name][1], "what is hidden changes the answer"


def test_occluders_grow_in_one_colour(tmp_path: Path) -> None:
    module = network("rogue", tmp_path)
    batch = people.Request(module, people.people_of("rogue", module)).batch(1)
    sheet = rogue.colors_sheet([module], batch, 0)
    hidden: list[Tensor] = []
    for heading, panels in sheet.columns.items():
        if not heading.endswith("hidden"):
            continue
        changed = (panels != batch.image).any(dim=1)
        for row, color in enumerate(rogue.COLORS.values()):
            inside = panels[row][:, changed[row]]
            torch.testing.assert_close(inside, torch.tensor(color)[:, None].expand_as(inside))
        hidden.append(changed[0])
    assert all((large | small == large).all() for small, large in pairwise(hidden))
    assert [int(mask.sum()) for mask in hidden] == sorted({int(mask.sum()) for mask in hidden})


def test_every_condition_alters_the_picture(tmp_path: Path) -> None:
    module = network("rogue", tmp_path)
    batch = people.Request(module, people.people_of("rogue", module)).batch(1)
    sheet = rogue.occlusions_sheet([module], batch, 0)
    same = [torch.equal(picture, batch.image[0]) for picture in sheet.columns["picture"]]
    assert same == [row in ("truth", "clean") for row in sheet.rows]
    half = len(sheet.rows) // 2
    assert sheet.rows[:2] == sheet.rows[half : half + 2] == ["truth", "clean"] and sum(same) == 4
    assert set(rogue.conditions()) < set(sheet.rows)
    empty = [not row for row in sheet.rows]
    assert [bool((panel == 1).all()) for panel in sheet.columns["shape"]] == empty and sum(empty) == 1


def answering(module: SelfAugmentation) -> SelfAugmentation:
    """The refiners of an untrained network answer 0: here each answers something of its own."""
    for refiner in (module.fine_model.mesh_refiner, module.fine_model.decoder.network):
        for linear in refiner.answer.lins:
            nn.init.normal_(linear.weight, std=0.02)
    return module


def test_the_final_texture_is_the_refiners_mean_and_what_is_seen_stays(tmp_path: Path) -> None:
    module = network("self_augmentation", tmp_path)
    assert isinstance(module, SelfAugmentation)
    batch = people.Request(module, people.people_of("self_augmentation", module)).batch(2)
    with torch.no_grad():
        textures = self_augmentation.textures_sheet(answering(module), batch).columns
        sheet = self_augmentation.hidden_sheet(module, batch).columns
    mesh, decoder, final = (textures[name] for name in ("mesh-wise refiner", "decoder", "final texture"))
    within = ((mesh > 0) & (mesh < 1) & (decoder > 0) & (decoder < 1)).all(dim=1, keepdim=True).expand_as(mesh)
    assert within.float().mean() > 0.05 and (mesh - decoder)[within].abs().max() > 1e-3
    torch.testing.assert_close(final[within], ((mesh + decoder) / 2)[within])
    large = people.fitted(sheet["part hidden"], people.LARGE)
    kept = (sheet["hidden part recovered"] == large).all(dim=1)
    hole = (sheet["picture"] != sheet["part hidden"]).any(dim=1, keepdim=True).float()
    hole = nn.functional.interpolate(hole, size=(people.LARGE, people.LARGE))[:, 0] > 0.5
    assert kept[~hole].all() and not kept[hole].all() and hole.any()


def test_light_adds_up_and_the_mask_leaves_highlights_out(tmp_path: Path) -> None:
    module = network("specular", tmp_path)
    batch = people.Request(module, people.people_of("specular", module)).batch(3)
    columns = specular.highlights_sheet(module, batch).columns
    lights = decode(columns["diffuse"]) + decode(columns["specular"])
    face = (columns["diffuse"] > 0).all(dim=1, keepdim=True) & (columns["answer"] < 0.99).all(dim=1, keepdim=True)
    assert face.float().mean() > 0.05
    off = torch.where(face, (decode(columns["answer"]) - lights).abs(), 0.0)
    assert off.sum() / face.sum() / 3 < 0.01  # pixels interpolate colours after the gamma
    bright = columns["true specular"].mean(dim=1, keepdim=True) >= specular.HIGHLIGHT
    assert bright.any() and not (columns["true mask"][:, :1] * bright).any()
    assert columns["true mask"].mean() > 0.05


def test_a_true_face_lies_on_its_held_out_picture(tmp_path: Path) -> None:
    module = network("finegrained", tmp_path)
    assert isinstance(module, Finegrained)
    batch = people.Request(module, people.people_of("finegrained", module)).batch(2)
    module.regressor = Told(people.true_coefficients(module.face_model, batch))  # type: ignore[assignment]
    with torch.no_grad():
        detail, relit = finegrained.sheets(module, batch)
    target, source = batch.pairs()
    assert torch.equal(relit.columns["found in"], batch.image[target])
    assert torch.equal(relit.columns["held-out picture"], batch.image[source])
    assert torch.equal(detail.columns["picture"], batch.image[target])
    for sheet, rows in ((detail, target), (relit, source)):
        assert batch.truth is not None
        true = batch.truth.depth[rows] > 0
        drawn = nn.functional.interpolate(sheet.columns["coarse normals"], size=true.shape[-2:], mode="area")
        found = (drawn > 0).any(dim=1, keepdim=True)
        assert (found & true).sum() > 0.9 * (found | true).sum()
        degrees = [float(line.split("\N{DEGREE SIGN}")[0]) for line in sheet.notes["coarse normals"]]
        assert max(degrees) < 25
    # Drawn in the target's place, a face would not lie on the source's picture.
    assert not torch.allclose(detail.columns["coarse normals"], relit.columns["coarse normals"], atol=0.1)


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
