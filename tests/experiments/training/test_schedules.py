"""Rate and batch of every shipped configuration at each stage's first and last step, on one process and on eight."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from datamodules.sampler import EpochSampler, training_loader
from experiments.__main__ import main
from lightning_modules.base import FaceModule
from lightning_modules.components.schedule import cosine_factor, learning_rate_factor, stage_at
from renderers.io.errors import UserError
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import small_face_model
from tests.conf.shiny import small_shiny_model
from tests.conf.tiny_papers import FixedCorruption, SmallBackbone, configuration, write_configuration

ROOT = Path(__file__).parents[3] / "experiments"
FACES = 10_007
# (faces of a step, [(step, learning rate)]) of each stage's first and last step. At the end of a cosine the rate is
# (1 + cos(pi (1 - 1/N))) / 2, about (pi / 2N)^2, of what it was; .9^9 and .9^19 are ten and twenty epochs' decay.
PAPER: dict[str, tuple[int, list[tuple[int, float]]]] = {
    "mgcnet": (5, [(0, 1e-4), (399_999, 1e-4)]),
    "rogue": (5, [(0, 1e-4), (199_999, 1e-4)]),
    "specular": (32, [(0, 5e-5), (199_999, 5e-5)]),
    "finegrained": (16, [(0, 1e-4), (199_999, 1e-4), (200_000, 1e-4), (399_999, 1e-4)]),
    "self_augmentation": (
        16,
        [(0, 1e-4), (99_999, 1e-4 * 0.9**9), (100_000, 1e-4), (299_999, 1e-4 * 0.9**19)],
    ),
}
DEFAULT: dict[str, tuple[int, list[tuple[int, float]]]] = {
    "mgcnet": (4, [(0, 2.0e-5), (2_499, 3.948e-10)]),
    "rogue": (5, [(0, 2.0e-5), (2_999, 2.742e-10)]),
    "specular": (8, [(0, 6.0e-5), (5_999, 2.056e-10)]),
    "finegrained": (
        3,
        [(0, 2.0e-5), (2_399, 4.284e-10), (2_400, 2.0e-5), (2_639, 4.284e-8), (2_640, 2.0e-5), (2_879, 4.284e-8)],
    ),
    "self_augmentation": (8, [(0, 2.0e-5), (999, 2.467e-9), (1_000, 2.0e-5), (1_699, 5.036e-9)]),
}
CASES = [
    (name, paper, *case) for name, cases in (("paper", PAPER), ("default", DEFAULT)) for paper, case in cases.items()
]


def shipped(paper: str, name: str) -> dict[str, Any]:
    contents: dict[str, Any] = yaml.safe_load((ROOT / paper / f"{name}.yaml").read_text())
    return contents


def included(paper: str, data: Any) -> dict[str, Any]:
    """A data section, or the file that stands for it, relative to the configuration."""
    found: dict[str, Any] = yaml.safe_load((ROOT / paper / data).read_text()) if isinstance(data, str) else data
    return found


def made(settings: dict[str, Any]) -> FaceModule:
    """The module of a configuration with small parts, and with every number that its schedule depends on."""
    module, name = settings["class_path"].rsplit(".", 1)
    given = settings["init_args"]
    scheduled = ("schedule", "decay_steps", "coarse_steps", "fine_start", "albedo_start")
    kept = {key: given[key] for key in scheduled if key in given}
    if name == "SelfAugmentation":
        kept |= {"attribute_encoder": SmallEncoder(), "corruption": FixedCorruption(), "channels": 4, "hidden": 8}
    face_model = small_shiny_model() if name == "Specular" else small_face_model()
    if name == "Finegrained":
        kept |= {"chart_size": 32}
    made: FaceModule = getattr(importlib.import_module(module), name)(
        face_model, SmallBackbone(), SmallEncoder(), image_size=32, **kept
    )
    return made


@pytest.mark.parametrize(("name", "paper", "batch", "rates"), CASES, ids=[f"{case[1]}-{case[0]}" for case in CASES])
def test_rate_and_batch(
    name: str, paper: str, batch: int, rates: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = shipped(paper, name)
    total = contents["trainer"]["max_steps"]
    assert rates[-1][0] == total - 1
    module = made(contents["model"])
    monkeypatch.setattr(FaceModule, "trainer", SimpleNamespace(estimated_stepping_batches=total))
    base = contents["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    configured = module.scheduled(torch.optim.Adam(module.parameters(), lr=base))
    for step, rate in rates:
        factor = 1.0
        if "lr_scheduler" in configured:
            assert configured["lr_scheduler"]["interval"] == "step"
            factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0](step)
        assert base * factor == pytest.approx(rate, rel=1e-3), step
    data = included(paper, contents["data"])
    while "data" in data["init_args"]:
        data = included(paper, data["init_args"]["data"])
    given = data["init_args"]["batch_size"]
    assert given == batch
    for world in (1, 8):
        samplers = [EpochSampler(range(FACES), 0, (rank, world)) for rank in range(world)]
        if batch % world:
            with pytest.raises(UserError, match=f"batch_size {batch} .* among {world}"):
                training_loader(range(FACES), samplers[0], given)  # type: ignore[arg-type]
            continue
        loaders = [training_loader(range(FACES), sampler, given) for sampler in samplers]  # type: ignore[arg-type]
        assert {len(loader) for loader in loaders} == {FACES // batch}  # steps of an epoch
        steps = [list(loader) for loader in loaders]
        for step in (0, -1):
            assert sum(len(own[step]) for own in steps) == batch


@pytest.mark.parametrize("paper", DEFAULT)
def test_terms_that_start_late_are_trained(paper: str) -> None:
    """At the end of a cosine the rate is nearly 0. A term that counts only there is paid for and teaches nothing."""
    contents = shipped(paper, "default")
    module, total = made(contents["model"]), contents["trainer"]["max_steps"]
    starts = {name: value for name, value in contents["model"]["init_args"].items() if name.endswith("_start")}
    assert starts
    for name, start in starts.items():
        _, end = stage_at(start, module.stage_starts(), total)
        assert sum(module.rate_factor(step, total) for step in range(start, end)) > 15, name


def test_what_a_batch_cannot_be_divided_among_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    contents = configuration("rogue")
    contents["data"]["init_args"]["data"]["init_args"]["batch_size"] = 5
    config = write_configuration(tmp_path / "config.yaml", contents)
    assert main(["fit", "--config", config, "--trainer.devices=2"]) == 2
    told = capsys.readouterr().err
    assert "batch_size 5" in told and "among 2" in told and "train on 1 (--trainer.devices)" in told
    assert not (tmp_path / "runs").exists()


def test_stages_start_anew() -> None:
    def factors(schedule: Any, starts: tuple[int, ...], total: int, every: int = 1) -> list[float]:
        return [learning_rate_factor(schedule, step, starts, total, every) for step in range(total)]

    assert factors("cosine", (0, 100), 300) == [
        *(cosine_factor(step, 100) for step in range(100)),
        *(cosine_factor(step, 200) for step in range(200)),
    ]
    assert factors("cosine", (0, 10**6), 50) == [cosine_factor(step, 50) for step in range(50)]
    assert factors("cosine", (0, 0), 50) == factors("cosine", (0,), 50)
    assert factors("decay", (0, 5), 9, 2) == [1, 1, 0.9, 0.9, 0.9**2, 1, 1, 0.9, 0.9]
    assert factors("constant", (0, 5), 9) == [1.0] * 9
