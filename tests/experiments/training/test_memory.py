"""A long run holds no more memory at its end than it did before.

The hour: `OMP_NUM_THREADS=1 python -m pytest -s -m hour --minutes 60 tests/experiments/training/test_memory.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conf.memory import TOLERANCE, growth, resident_megabytes
from tests.conf.tiny_papers import configuration, write_configuration

ROOT = Path(__file__).parents[3]
SAMPLE_SECONDS = 2.0
STATUS = Path("/proc/self/status")


def small_run(minutes: float) -> dict[str, Any]:
    """A paper's small training with everything that a run does: validations, pictures, checkpoints, an offline log."""
    config = configuration("mgcnet", norm=True)
    config["model"]["init_args"]["schedule"] = "constant"  # no number of steps is known
    config["data"]["init_args"] |= {"train_faces": 50, "val_faces": 5, "num_workers": 1}
    hours, rest = divmod(round(60 * minutes), 3600)
    config["trainer"] |= {
        "max_steps": -1,
        "max_time": f"00:{hours:02}:{rest // 60:02}:{rest % 60:02}",
        "val_check_interval": 100,
        "log_every_n_steps": 10,
    }
    return {**config, "wandb": "offline", "checkpoint_every": 40}


def test_growth_is_that_of_the_last_quarter_over_the_second() -> None:
    assert growth([1.0, 9.0] + [4.0] * 2 + [7.0] * 2 + [5.0] * 2) == (4.0, 5.0, 0.25)
    leak = [100 + 0.1 * step for step in range(100)]  # a tenth in all
    assert growth(leak)[2] > TOLERANCE


@pytest.mark.hour
@pytest.mark.skipif(not STATUS.is_file(), reason="no /proc: the size of a process is read there")
def test_memory_stays_flat(tmp_path: Path, minutes: float) -> None:
    config = write_configuration(tmp_path / "config.yaml", small_run(minutes))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MONOFACE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "experiments", "fit", "--config", config, "--run_id", "a"]
    log = tmp_path / "log"
    sizes: list[float] = []
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=file)
        try:
            while process.poll() is None:
                if (tmp_path / "runs/mgcnet/a/metrics.json").is_file():  # training has begun
                    try:
                        sizes.append(resident_megabytes(process.pid))
                    except (ProcessLookupError, FileNotFoundError):
                        break
                time.sleep(SAMPLE_SECONDS)
        finally:
            process.kill()
    assert process.wait() == 0, log.read_text()
    assert len(sizes) * SAMPLE_SECONDS > 0.8 * 60 * minutes
    second, last, grown = growth(sizes)
    print(f"resident: {second:.1f} MB in the second quarter, {last:.1f} MB in the last one ({grown:+.2%})")
    assert abs(grown) <= TOLERANCE
