"""The house itself: what is packaged, what is tracked, what `make` offers, what is pinned."""

from __future__ import annotations

import importlib
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
    *("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"),
}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that a commit would hold."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


# What a user may write behind a target.
VARIABLES = [
    *(
        "IMAGE",
        "OUT",
        "CHECKPOINT",
        "DIR",
        "RESUME",
        "INIT",
        "SUITE",
        "CONFIG",
        "SEEDS",
        "RUNS",
        "LOCAL",
        "CPU",
        "ARGS",
    ),
    *("PYTHON", "CONSTRAINTS"),
]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make, with .venv taken for what it should be."""
    # What an outer `make test` was told, and what it hands on, would change what the inner one does.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MAKE", "MFLAGS")) and key not in VARIABLES
    }
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`BIN=` of a Python that writes down the words it is called with."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n")
    (folder / "python").chmod(0o755)
    return f"BIN={folder}"


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

    def test_what_the_readme_has_people_put_here_is_ignored(self) -> None:
        if not (ROOT / ".git").exists():
            pytest.skip("not a git checkout")
        guides = [ROOT / "README.md", *ROOT.glob("experiments/*/README.md"), *ROOT.glob("experiments/docs/pages/*.md")]
        text = "\n".join(path.read_text(encoding="utf-8") for path in guides)
        named = set(re.findall(r"\b(?:data|runs)/[\w/.-]*\w|(?<=[= ])[\w]+\.(?:jpg|png)\b|(?<=DIR=)\w+", text))
        assert {"data/BFM_model_front.mat", "data/photos", "photos", "me.jpg", "sunglasses.png"} <= named
        for path in sorted(named):
            command = ["git", "check-ignore", "--quiet", path if "." in path else f"{path}/face.jpg"]
            assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, path


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

    def words(self, stand_in: str, *arguments: str) -> list[str]:
        """What `python -m experiments` is called with."""
        answer = make(stand_in, *arguments)
        assert answer.returncode == 0, answer.stderr
        head, *words = answer.stdout.split("\0")[1:-1]
        assert head == "experiments"
        return words

    @pytest.mark.parametrize("paper", sorted(path.parent.name for path in ROOT.glob("experiments/*/default.yaml")))
    def test_every_paper_has_its_targets(self, paper: str, stand_in: str) -> None:
        train = self.words(stand_in, f"train-{paper}", "CONFIG=paper", "ARGS=--seed_everything 3")
        assert train == ["fit", f"--config=experiments/{paper}/paper.yaml", "--seed_everything", "3"]
        assert "--trainer.fast_dev_run=true" in self.words(stand_in, f"debug-{paper}")
        assert self.words(stand_in, f"table-{paper}", "SEEDS=2") == ["table", paper, "--seeds=2"]
        sweep = self.words(stand_in, f"sweep-{paper}", "LOCAL=1", "RUNS=4")
        assert sweep == ["sweep", paper, "--local", "--runs=4"]

    @pytest.mark.parametrize("target", ["train-nobody", "debug-nobody", "table-nobody"])
    def test_an_unknown_paper_is_answered_with_those_there_are(self, target: str) -> None:
        answer = make(target)
        assert answer.returncode == 2
        assert "no paper named nobody; there are: finegrained mgcnet" in answer.stdout

    NASTY = (
        "my photo.jpg", "o'brien.png", 'a "b".png', "it's #1.jpg", "-dash.jpg", "--out", "a$b.png", "a$$b.png",
        "$(HOME)", "${HOME}", "$@", "x'; touch PWNED; '", '"; touch PWNED; "', "$(shell touch PWNED)", "$(touch PWNED)",
        "`touch PWNED`", "a\\nb\\", "%.jpg", "*", "a;b&c|d>PWNED", "two  spaces", "line\nbreak", "=",
        "été 日本.jpg", "~",
    )  # fmt: skip

    @pytest.mark.parametrize("name", NASTY)
    def test_any_name_arrives_as_it_was_written(self, name: str, stand_in: str) -> None:
        """Of every variable of every target; and nothing in it is run, by make or by the shell."""
        given = [f"{variable}={name}" for variable in VARIABLES if variable not in ("ARGS", "PYTHON", "CONSTRAINTS")]
        expected = {
            "reconstruct": ["reconstruct", f"--out={name}", f"--checkpoint={name}", "--", name],
            "demo": ["demo", f"--checkpoint={name}"],
            "relight": ["relight", f"--checkpoint={name}", f"--image={name}", f"--out={name}"],
            "evaluate": ["evaluate", f"--suite={name}", f"--checkpoint={name}"],
            "prepare-photos": ["prepare", "photos", f"--out={name}", "--", name],
            "train-mgcnet": [
                *("fit", f"--config=experiments/mgcnet/{name}.yaml"),
                *(f"--model.init_args.init_weights={name}", f"--resume={name}"),
            ],
            "debug-mgcnet": ["fit", f"--config=experiments/mgcnet/{name}.yaml", "--trainer.fast_dev_run=true"],
            "table-mgcnet": ["table", "mgcnet", f"--seeds={name}"],
            "figures-rogue": ["figures", "rogue", f"--checkpoint={name}", f"--output={name}"],
            "sweep-mgcnet": ["sweep", "mgcnet", "--local", f"--runs={name}"],
        }
        answer = make(stand_in, *expected, *given)
        assert answer.returncode == 0, answer.stderr
        calls = answer.stdout.removesuffix("\0").split("-m\0experiments\0")[1:]
        assert [call.removesuffix("\0").split("\0") for call in calls] == list(expected.values())
        assert not (ROOT / "PWNED").exists()

    def test_arguments_are_the_shells_alone(self, stand_in: str) -> None:
        words = self.words(
            stand_in, "relight", "ARGS=--out 'a b$c.gif' --seed $((1 + 2)) --image '$(shell touch PWNED)'"
        )
        assert words == ["relight", "--out", "a b$c.gif", "--seed", "3", "--image", "$(shell touch PWNED)"]

    def test_a_name_is_taken_from_the_environment_too(self, stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
        environment = {"PATH": os.environ["PATH"], "IMAGE": "$(shell touch PWNED)o'b.png"}
        command = ["make", "--no-print-directory", "-o", ".venv/.installed", stand_in, "reconstruct"]
        printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        assert printed.endswith("--\0$(shell touch PWNED)o'b.png\0")

    def test_an_unknown_target_runs_nothing(self) -> None:
        answer = make("train-x'$(shell touch PWNED); touch PWNED; '")
        assert answer.returncode == 2 and "no paper named x'" in answer.stdout
        assert not (ROOT / "PWNED").exists()

    def test_preparing_photos_asks_for_its_folders(self) -> None:
        answer = make("prepare-photos", "DIR=photos")
        assert answer.returncode == 2
        assert "DIR=photos OUT=prepared" in answer.stdout


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
        assert {"lint", "test", "setup", "bench"} == called
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


PAPERS = {path.parent.name for path in (ROOT / "lightning_modules").glob("*/module.py")}


def test_components_serve_at_least_two_papers() -> None:
    """What one paper alone imports belongs into that paper's folder."""
    import grimp

    graph = grimp.build_graph("lightning_modules")
    for component in sorted(graph.find_children("lightning_modules.components")):
        users = {module.split(".")[1] for module in graph.find_downstream_modules(component)}
        papers = PAPERS if "base" in users else users & PAPERS
        assert len(papers) >= 2, f"{component} serves {', '.join(papers) or 'no paper'}"


@pytest.mark.parametrize("package", ["renderers", "losses", "datamodules", "lightning_modules"])
def test_every_public_name_can_be_imported(package: str) -> None:
    public = importlib.import_module(package)
    assert public.__all__
    for name in public.__all__:
        assert getattr(public, name).__name__ == name
