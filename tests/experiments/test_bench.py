"""The bench command: what it prints and writes, and the meshes it measures on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from experiments.bench import command, rasterizer, render
from experiments.bench.command import BENCHMARKS, add_arguments
from experiments.bench.measure import Measurement, Row, compare, measure
from experiments.bench.meshes import face_like_mesh, face_like_model
from renderers.errors import UserError

CPU = torch.device("cpu")
KEYS = ["name", "case", "device", "against", "ratio", "median_s", "spread", "peak_mib"]


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks that take moments."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for benchmark in (rasterizer, render):
        monkeypatch.setattr(benchmark, "measure", partial(measure, repeats=2))
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
    rows = json.loads(target.read_text())["rows"]
    assert [row["name"] for row in rows] == ["rasterizer", "rasterizer", "render"]
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


def test_measure_times_what_runs() -> None:
    calls = []
    result = measure(lambda: (calls.append(None), time.sleep(0.02)), CPU, budget_s=5.0, repeats=4)
    assert len(calls) == 5, "a warm-up and four runs"
    assert 0.02 <= result.median_s < 1
    assert result.spread is not None


def test_measure_stops_at_its_budget_but_runs_once() -> None:
    calls = []
    result = measure(lambda: calls.append(None), CPU, budget_s=0.0, warm_up=False)
    assert len(calls) == 1
    assert result.spread is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
def test_peak_memory_is_of_this_run_alone() -> None:
    large = measure(lambda: np.ones(2**24), CPU, repeats=1).peak_mib
    small = measure(lambda: None, CPU, repeats=1).peak_mib
    assert large is not None
    assert small is not None
    assert 100 < large - small < 160, "128 MiB were held and given back"


def test_table_shows_every_row() -> None:
    shown = command.table([row(ratio=5.0), row(ratio=4321.0)])
    assert shown.row_count == 2
    assert list(shown.columns[2].cells) == ["5", "4,321"]


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


def test_model_has_the_size_of_bfm() -> None:
    model = face_like_model()
    assert model.vertex_count == pytest.approx(35_709, rel=0.01)
    assert len(model.faces) == pytest.approx(70_789, rel=0.01)
    assert model.layout().length == 257
