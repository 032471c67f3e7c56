"""The bench command: what it prints and writes, and the meshes it measures on."""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from experiments.commands.bench import command, rasterizer, render
from experiments.commands.bench.command import BENCHMARKS, add_arguments
from experiments.commands.bench.measure import Measurement, Row, Stopwatch, compare, race, take_turns
from experiments.commands.bench.meshes import face_like_mesh, face_like_model, landmark_places
from renderers.io.errors import UserError

ROOT = Path(__file__).parents[3]

CPU = torch.device("cpu")
KEYS = ["name", "case", "device", "against", "ratio", "median_s", "spread", "peak_mib"]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two benchmarks alone, of moments."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(command, "BENCHMARKS", ("rasterizer", "render"))
    for benchmark in (rasterizer, render):

        def quick(*arguments: Any, **options: Any) -> Row:
            return race(*arguments, **{**options, "repeats": 2})

        monkeypatch.setattr(benchmark, "race", quick)
    monkeypatch.setattr(rasterizer, "FACES", (200, 800))
    monkeypatch.setattr(rasterizer, "SIZE", 48)
    monkeypatch.setattr(render, "SIZE", 32)
    monkeypatch.setattr(render, "BATCH", 2)
    monkeypatch.setattr(render, "face_like_model", lambda: face_like_model(500, 4, 3, 2))


@pytest.mark.usefixtures("small")
def test_all_benchmarks_write_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pytorch3d")
    target = tmp_path / "bench.json"
    assert command.run(parse("--json", str(target))) == 0
    tree = json.loads(target.read_text())
    assert list(tree) == ["rows"]
    rows = tree["rows"]
    assert [row["name"] for row in rows] == ["rasterizer"] * 3 + ["render"]
    assert ["gradients" in row["case"] for row in rows] == [False, False, True, False]
    assert all(list(row) == KEYS for row in rows)
    assert all(row["ratio"] > 0 and row["median_s"] > 0 and row["device"] == "cpu" for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    printed = capsys.readouterr().out
    assert f"{torch.get_num_threads()} CPU threads" in printed
    assert "200 faces" in printed
    assert "ResNet-50" in printed


@pytest.mark.usefixtures("small")
def test_one_benchmark_without_its_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "warp" else None)
    with pytest.raises(UserError, match="'pytorch3d' is not installed"):
        command.run(parse("rasterizer"))
    monkeypatch.setattr(render, "run", lambda device: iter([row(ratio=5.0)]))
    assert command.run(parse()) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "rasterizer left out: rasterizer backend 'pytorch3d' is not installed" in printed


def row(ratio: float) -> Row:
    return Row("render", "a case", "cpu", "a reference", ratio, 0.5, None, None)


def test_folder_that_is_not_there_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(device: torch.device) -> Iterator[Row]:
        raise AssertionError("measured first")

    monkeypatch.setattr(render, "run", never)
    with pytest.raises(UserError, match="there is no folder"):
        command.run(parse("render", "--json", str(tmp_path / "missing" / "bench.json")))
    with pytest.raises(UserError, match="only `bench scaling` draws"):
        command.run(parse("render", "--out", str(tmp_path / "plot.png")))


def test_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert command.chosen_devices(None) == ["cpu", "cuda"]
    assert command.chosen_devices("cuda") == ["cuda"]
    measured: list[torch.device] = []

    def run(device: torch.device) -> Iterator[Row]:
        measured.append(device)
        yield row(ratio=5.0)

    monkeypatch.setattr(render, "run", run)
    monkeypatch.setattr(command, "environment", lambda: "a GPU")
    assert command.run(parse("render", "--device", "cuda")) == 0
    assert measured == [torch.device("cuda")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.chosen_devices(None) == ["cpu"]
    with pytest.raises(UserError, match="no CUDA device that torch can use"):
        command.run(parse("--device", "cuda"))
    with pytest.raises(UserError, match="with --against the file says"):
        command.run(parse("--device", "cpu", "--against", "rows.json"))


def test_reference_is_measured_at_its_best() -> None:
    def run(bin_size: int) -> None:
        time.sleep(0.001 if bin_size == 32 else 0.01)

    assert rasterizer.quickest((0, 16, 32, 64), run, CPU) == 32


def test_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("teapot")
    message = capsys.readouterr().err
    assert all(name in message for name in BENCHMARKS)


def test_row_has_the_documented_fields() -> None:
    assert [field.name for field in fields(Row)] == KEYS


def test_ratio_is_how_many_times_as_fast() -> None:
    made = compare("name", "case", CPU, Measurement(0.5, 0.1, 7.0), "slow one", reference_s=3.0)
    assert made == Row("name", "case", "cpu", "slow one", 6.0, 0.5, 0.1, 7.0)


def measured(function: Callable[[], object], budget_s: float = 2.0, repeats: int = 20) -> Measurement:
    watch = Stopwatch(function, CPU)
    take_turns([watch], budget_s, repeats)
    return watch.measurement


def test_stopwatch_times_what_runs() -> None:
    calls = []
    result = measured(lambda: (calls.append(None), time.sleep(0.02)), budget_s=5.0, repeats=4)
    assert len(calls) == 4
    assert 0.02 <= result.median_s < 1
    assert result.spread is not None


def test_stopwatch_stops_at_its_budget_but_runs_once() -> None:
    calls = []
    result = measured(lambda: calls.append(None), budget_s=0.0)
    assert len(calls) == 1
    assert result.spread is None


def test_race_runs_the_one_that_had_less_time() -> None:
    """A quick case has all its runs while a slow reference has one: both meet the same load."""
    order: list[str] = []

    def ours() -> None:
        order.append("ours")
        time.sleep(0.002)

    def slow() -> None:
        order.append("slow")
        time.sleep(0.06)

    row = race("name", "case", CPU, ours, "slow one", slow, share=2.0, budget_s=0.1, repeats=5, warm_reference=False)
    assert order[0] == "ours", "warmed up"
    assert order[1:3] == ["ours", "slow"]
    assert order[1:].count("ours") == 5
    assert order.count("slow") == 2, "until its budget is spent"
    assert 20 < row.ratio < 80, "twice 60 ms against 2 ms, and what sleeping costs"
    assert (row.name, row.case, row.device, row.against) == ("name", "case", "cpu", "slow one")


def test_race_tells_the_time_by_its_clock() -> None:
    ticks = iter(range(100))
    row = race("n", "c", CPU, lambda: None, "a", lambda: None, repeats=3, clock=lambda: float(next(ticks)))
    assert (row.median_s, row.ratio) == (1.0, 1.0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
def test_peak_memory_is_of_this_run_alone() -> None:
    """In a process of its own: other tests leave a heap behind in which 128 MiB find room without growing it."""
    program = (
        "import numpy as np; from tests.experiments.commands.test_bench import measured; "
        "print(measured(lambda: np.ones(2**24), repeats=1).peak_mib, measured(lambda: None, repeats=1).peak_mib)"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    large, small = map(float, told.stdout.split())  # "None" is no number
    assert 100 < large - small < 160, "128 MiB were held and given back"


def test_table_shows_every_row() -> None:
    shown = command.table([row(ratio=5.0), row(ratio=4321.0), row(ratio=0.8)], "title")
    assert shown.row_count == 3
    assert list(shown.columns[2].cells) == ["5", "4,321", "1 / 1.25"], "a slower one by how many times the cost"


@pytest.mark.parametrize("wanted", [50, 5_000, 70_000])
def test_mesh_is_a_patch_that_faces_outward(wanted: int) -> None:
    vertices, faces, uv = face_like_mesh(wanted)
    assert abs(len(faces) - wanted) <= 0.15 * wanted
    assert (uv.min(), uv.max()) == (0, 1)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.euler_number == 1, "one disc"
    assert mesh.is_winding_consistent
    outward = (mesh.face_normals * mesh.triangles_center).sum(axis=1)
    assert (outward > 0).mean() > 0.98
    assert np.array_equal(vertices, face_like_mesh(wanted)[0])


def test_every_benchmark_is_a_module_that_runs_on_a_device() -> None:
    for name in (*BENCHMARKS, command.SCALING):
        first = next(iter(inspect.signature(import_module(f"experiments.commands.bench.{name}").run).parameters))
        assert first == "device"


def test_landmarks_are_a_face_seen_from_the_front() -> None:
    """iBUG order: every point's mirror image is the place of its counterpart, and the mouth is below the eyes."""
    places = landmark_places()
    mirrored = [
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37,
        36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
    ]  # fmt: skip
    np.testing.assert_allclose(places[mirrored] * [-1, 1], places, atol=1e-12)
    assert places[36:48, 1].min() > places[30, 1] > places[48:, 1].max()
    model = face_like_model(5_000, 2, 2, 2)
    found = model.mean_shape[model.landmark_indices].numpy()
    assert np.abs(found[:, :2] - places).max() < 0.1
    assert (found[:, 2] > 0).all()


def test_shiny_model_has_a_specular_albedo() -> None:
    assert face_like_model(200, 2, 2, 2, specular=True).has_specular
    assert not face_like_model(200, 2, 2, 2).has_specular


def test_model_has_the_size_of_bfm() -> None:
    model = face_like_model()
    assert model.vertex_count == pytest.approx(35_709, rel=0.01)
    assert len(model.faces) == pytest.approx(70_789, rel=0.01)
    assert model.layout().length == 257
