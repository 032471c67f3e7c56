"""Every paper trains with the kernels that a GPU runs as it does with torch's functions; here both on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.__main__ import main
from renderers.kernels import launch, on_gpu
from tests.conf.tiny_papers import PAPERS, little, write_configuration

RECORD = "tests.conf.tiny_papers.StepRecord"


def in_single_precision(*values: Any) -> bool:
    """What `has_kernels` says, without asking where the tensors are."""
    kinds = [value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    return set(kinds) == {torch.float32} or (not kinds and any(isinstance(value, Tensor) for value in values))


@pytest.mark.parametrize("paper", PAPERS)
def test_kernels_train_as_the_functions_do(paper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = little(paper, 3)
    arguments = contents["model"]["init_args"]
    arguments |= dict.fromkeys([name for name in arguments if name.endswith(("_start", "coarse_steps"))], 0)
    config = write_configuration(tmp_path / "config.yaml", contents)
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    launched: list[str] = []
    run = launch.wp.launch

    def counted(kernel: Any, **arguments: Any) -> None:
        launched.append(kernel.key)
        run(kernel, **arguments)

    monkeypatch.setattr(launch.wp, "launch", counted)
    held = {}
    for way in ("functions", "kernels"):
        folder = tmp_path / way
        folder.mkdir()
        monkeypatch.chdir(folder)
        if way == "kernels":
            assert set(launched) == {"draw_faces"}
            monkeypatch.setattr(on_gpu, "has_kernels", in_single_precision)
        given = [f"--trainer.callbacks+={RECORD}", f"--trainer.callbacks.folder={folder}"]
        assert main(["fit", "--config", config, "--run_id=a", *given]) == 0
        held[way] = torch.load(folder / "0.pt", weights_only=True)
    assert {"mix_corners", "weigh_corners", "gather_light", "sum_normals", "measure_colors"} <= set(launched)
    functions, kernels = held["functions"], held["kernels"]
    mine, other = (part["gradients"][0] for part in (kernels, functions))
    assert mine.keys() == other.keys()
    largest = max(float(value.abs().max()) for value in other.values())
    for name, value in other.items():
        assert (mine[name] - value).abs().max() <= 1e-4 * largest, name
    for name, value in functions["weights"].items():
        torch.testing.assert_close(kernels["weights"][name], value, rtol=1e-4, atol=1e-4, msg=name)
