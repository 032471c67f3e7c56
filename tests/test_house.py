"""The house itself: what is packaged, what is tracked, what `make` offers, what is pinned."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = {"lightning_modules", "datamodules", "losses", "renderers", "experiments"}
TOP_LEVEL = PACKAGES | {
    *("tests", ".ci", ".github"),
    *("pyproject.toml", "constraints.txt", "Makefile", ".gitignore", ".pre-commit-config.yaml"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"),
}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that a commit would hold."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def make(*arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    """Run make, with .venv taken for what it should be where `installed`."""
    # Make's own variables, when these tests run under `make test`, would change what the inner one prints.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    old = ["-o", ".venv/.installed"] if installed else []
    command = ["make", "--no-print-directory", *old, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


class TestPackages:
    def test_a_wheel_holds_the_five_packages_and_their_settings(self, tracked: list[Path], tmp_path: Path) -> None:
        source = tmp_path / "source"
        for file in tracked:
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
        subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True)
        (wheel,) = tmp_path.glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        top_level = {name.split("/")[0] for name in names}
        assert {name for name in top_level if not name.endswith(".dist-info")} == PACKAGES
        held = {path.relative_to(ROOT).as_posix() for path in tracked if path.relative_to(ROOT).parts[0] in PACKAGES}
        assert {name for name in held if name.endswith((".py", ".yaml", ".npz", ".json"))} <= set(names)

    def test_every_console_entry_can_be_called(self) -> None:
        entries = importlib.metadata.distribution("monoface").entry_points.select(group="console_scripts")
        assert {entry.name for entry in entries} == {"monoface"}
        assert all(callable(entry.load()) for entry in entries)

    def test_nothing_else_stands_at_the_top_level(self, tracked: list[Path]) -> None:
        assert {path.relative_to(ROOT).parts[0] for path in tracked} <= TOP_LEVEL


class TestTrackedFiles:
    def test_none_is_over_ten_megabytes(self, tracked: list[Path]) -> None:
        assert [path.name for path in tracked if path.stat().st_size > 10_000_000] == []

    def test_none_names_a_home_folder_or_a_package_index(self, tracked: list[Path]) -> None:
        forbidden = re.compile(
            rb"(?<![\w.])/(?:home|Users|root)/\w|inde[x]-url|find-link[s]|https?://[^\s)\"']*/simple\b"
        )
        found = {
            path.name: forbidden.findall(path.read_bytes()) for path in tracked if path.suffix not in (".png", ".npz")
        }
        assert {name: matches for name, matches in found.items() if matches} == {}


class TestMake:
    def targets(self) -> set[str]:
        rules = re.findall(r"^([^\s#.$%][^:=]*|\$\(PAPERS:%=[a-z]+-%\)):(?!=)", (ROOT / "Makefile").read_text(), re.M)
        return {re.sub(r"\$\(PAPERS:%=(.*)-%\)", r"\1-PAPER", rule) for rule in rules} - {"train-% debug-% table-%"}

    def test_help_has_one_line_for_each_target_and_is_the_default(self) -> None:
        printed = make().stdout
        listed = re.findall(r"^  make (\S+) +(?:\[?[A-Z]+=\S* +)*(\S.*)$", printed, re.M)
        assert sorted(name for name, _ in listed) == sorted(self.targets())
        assert {"help", "setup", "train-PAPER", "debug-PAPER", "test", "lint", "bench", "reconstruct"} <= self.targets()
        assert make("help").stdout == printed

    @pytest.mark.parametrize("paper", sorted(path.parent.name for path in ROOT.glob("experiments/*/default.yaml")))
    def test_every_paper_has_its_targets(self, paper: str) -> None:
        train = make("-n", f"train-{paper}", "CONFIG=paper", "ARGS=--seed_everything 3")
        assert train.returncode == 0
        assert f"fit --config experiments/{paper}/paper.yaml --seed_everything 3" in train.stdout
        assert "--trainer.fast_dev_run=true" in make("-n", f"debug-{paper}").stdout
        assert f"table {paper} --seeds 2" in make("-n", f"table-{paper}", "SEEDS=2").stdout

    @pytest.mark.parametrize("target", ["train-nobody", "debug-nobody", "table-nobody"])
    def test_an_unknown_paper_is_answered_with_those_there_are(self, target: str) -> None:
        answer = make(target)
        assert answer.returncode == 2
        assert "no paper named nobody; there are: finegrained mgcnet" in answer.stdout

    def test_reconstruct_keeps_a_name_with_spaces_whole(self) -> None:
        command = make("-n", "reconstruct", "IMAGE=my photo.jpg", "OUT=there").stdout
        assert "reconstruct 'my photo.jpg' --out 'there'" in command
        assert "--checkpoint" not in command

    def test_preparing_photos_asks_for_its_folders(self) -> None:
        answer = make("prepare-photos", "DIR=photos")
        assert answer.returncode == 2
        assert "DIR=photos OUT=prepared" in answer.stdout


class TestSetup:
    """`make setup` with a stand-in for Python that writes down what it is asked to do."""

    STAND_IN = """#!/bin/sh
case "$*" in
  -c*) exit $(cat OLD 2>/dev/null || echo 0) ;;
  --version) echo "Python 3.8.1" ;;
  "-m venv"*) echo "$2 $3" >> log; mkdir -p .venv/bin; cp python .venv/bin/python ;;
  "-m pip --version") exit 0 ;;
  "-m pip install"*) echo "$2 $3" >> log; test ! -e BROKEN ;;
esac
"""

    @pytest.fixture
    def house(self, tmp_path: Path) -> Path:
        shutil.copy(ROOT / "Makefile", tmp_path)
        for name in ("pyproject.toml", "constraints.txt"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (1e9, 1e9))
        (tmp_path / "python").write_text(self.STAND_IN)
        (tmp_path / "python").chmod(0o755)
        return tmp_path

    def run(self, house: Path, python: str = "./python") -> tuple[int, str, list[str]]:
        """The exit code, what was printed, and what Python was asked to do."""
        log = house / "log"
        log.unlink(missing_ok=True)
        answer = make("-C", str(house), "setup", f"PYTHON={python}", installed=False)
        return answer.returncode, answer.stdout, log.read_text().splitlines() if log.exists() else []

    def test_installs_once_and_again_when_the_pins_change(self, house: Path) -> None:
        code, _, asked = self.run(house)
        assert (code, asked) == (0, ["venv --clear", "pip install"])
        code, _, asked = self.run(house)
        assert (code, asked) == (0, [])
        (house / "constraints.txt").touch()
        os.utime(house / ".venv/.installed", (1.1e9, 1.1e9))
        code, _, asked = self.run(house)
        assert (code, asked) == (0, ["pip install"])

    def test_starts_afresh_after_an_interrupted_installation(self, house: Path) -> None:
        (house / "BROKEN").touch()
        code, _, asked = self.run(house)
        assert (code, asked) == (2, ["venv --clear", "pip install"])
        (house / "BROKEN").unlink()
        code, _, asked = self.run(house)
        assert (code, asked) == (0, ["venv --clear", "pip install"])
        assert not (house / ".venv/.installing").exists()

    @pytest.mark.parametrize(("python", "found"), [("./python", "Python 3.8.1"), ("./nowhere", "not found")])
    def test_refuses_an_old_or_missing_python(self, house: Path, python: str, found: str) -> None:
        (house / "OLD").write_text("1")
        code, printed, _ = self.run(house, python)
        assert code == 2
        assert f"monoface needs Python 3.10 or newer; {python} is " in printed
        assert found in printed
        assert not (house / ".venv").exists()


class TestPins:
    def test_every_requirement_is_pinned_within_its_range(self) -> None:
        pins: dict[str, str] = {}
        for line in (ROOT / "constraints.txt").read_text().splitlines():
            if line and not line.startswith("#"):
                pin = Requirement(line)
                assert re.fullmatch(r"==[\w.+]+", str(pin.specifier)), line
                if pin.marker is None or pin.marker.evaluate():
                    assert (
                        pins.setdefault(canonicalize_name(pin.name), str(pin.specifier)[2:]) == str(pin.specifier)[2:]
                    )
        wanted = [Requirement(line) for line in importlib.metadata.requires("monoface") or []]
        for requirement in wanted:
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", "dev", "landmarks")
            ):
                assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


class TestAutomation:
    def test_workflows_call_targets_that_exist(self) -> None:
        jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
        assert {"lint", "test", "without-pytorch3d", "minimum-versions"} <= set(jobs)
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        called = {name for command in commands for name in re.findall(r"^make (\S+)", command, re.M)}
        assert {"lint", "test", "setup"} == called
        assert called <= TestMake().targets()

    def test_pre_commit_accepts_its_file_and_the_hooks_exist(self) -> None:
        from pre_commit.clientlib import load_config

        (repository,) = load_config(str(ROOT / ".pre-commit-config.yaml"))["repos"]
        programs = {hook["entry"].split()[0] for hook in repository["hooks"] if hook["language"] != "pygrep"}
        assert programs == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports"}

    def test_ci_runs_the_readmes_test_command(self) -> None:
        script = ROOT / ".ci/run"
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
        assert {"make setup", "make lint", "make test"} <= set(script.read_text().splitlines())
        assert re.search(r"^ *make test\b", (ROOT / "README.md").read_text(), re.M)

    def test_the_licence_is_apache(self) -> None:
        text = (ROOT / "LICENSE").read_text()
        assert "Apache License" in text
        assert "END OF TERMS AND CONDITIONS" in text
        assert importlib.metadata.metadata("monoface")["License-Expression"] == "Apache-2.0"
