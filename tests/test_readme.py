"""Every command of the READMEs and the site, as `make` would run it: where it trains, with a small budget."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.__main__ import main

ROOT = Path(__file__).parents[1]
READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("*/*/README.md")),
    *sorted(ROOT.glob("experiments/docs/pages/*.md")),
]
# What makes a command small. A command of a README that is not here fails the test.
SMALL = {
    "make train-mgcnet": [
        "--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.init_args.train_faces=8",
        "--data.init_args.val_faces=2",
    ],
    'make train-mgcnet ARGS="--data.settings.heads={} --data.camera_effects={}"': [
        "--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.init_args.train_faces=4",
        "--data.init_args.val_faces=1",
    ],
    "make reconstruct IMAGE=me.jpg": [],
    'make corruptions ARGS="--image me.jpg --kind sunglasses --output sunglasses.png"': [],
    "make prepare-photos DIR=photos OUT=data/photos": [],
    'make train-mgcnet ARGS="--data experiments/shared/data_photos.yaml"': [
        "--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.init_args.num_workers=0",
    ],
}  # fmt: skip
# Run elsewhere: the first by `.ci/run`, the others by the tests named.
ELSEWHERE = {
    "make help": "tests/test_house.py",
    "make docs": "tests/test_docs.py",
    "make reconstruct": "tests/experiments/commands/test_reconstruct.py",
    "make evaluate": "tests/experiments/commands/test_evaluate.py",
    "make train-mgcnet RESUME=auto": "tests/experiments/training/test_resume.py",
    "make setup": ".ci/run",
    "make test": ".ci/run",
    "make setup CPU=1": ".ci/run",
    "make lint": ".ci/run",
    "make bench": "tests/experiments/commands/test_bench.py",
    'make bench ARGS="--json FILE"': "tests/experiments/commands/test_bench.py",
    'make bench ARGS="full_step --device cuda"': "tests/experiments/commands/test_bench.py",
    'make bench ARGS="scaling --out .github/scaling.png"': "tests/experiments/commands/test_bench_scaling.py",
    'make bench ARGS="--against experiments/commands/bench/expected.json"': ".github/workflows/ci.yml",
    "make sheet": "tests/renderers/face_models/test_default.py",
    'make sheet ARGS="--heads --count 32 --size 160 --seed 3"': "tests/datamodules/test_synthetic_heads.py",
    "make corruptions": "tests/experiments/commands/test_corruptions.py",
    "make relight": "tests/experiments/commands/test_relight.py",
    "make relight CHECKPOINT=runs/specular/RUN/checkpoints/last.ckpt": "tests/experiments/commands/test_relight.py",
    "make figures-mgcnet": "tests/experiments/commands/test_figures.py",
    "make figures-rogue": "tests/experiments/commands/test_figures.py",
    "make figures-self_augmentation": "tests/experiments/commands/test_figures.py",
    "make figures-specular": "tests/experiments/commands/test_figures.py",
    "make figures-finegrained": "tests/experiments/commands/test_figures.py",
    "make sweep-mgcnet LOCAL=1 RUNS=4": "tests/experiments/commands/test_sweep.py",
    'make evaluate SUITE=now CHECKPOINT=runs/mgcnet/RUN/checkpoints/last.ckpt ARGS="--data DIR"': (
        "tests/experiments/commands/test_evaluate_benchmarks.py"
    ),
    "make table-rogue": "tests/experiments/commands/test_table.py",
    "make train-rogue": "tests/experiments/training/test_configs.py",
    "make train-specular": "tests/experiments/training/test_configs.py",
    "make train-finegrained": "tests/experiments/training/test_configs.py",
    "make train-self_augmentation": "tests/experiments/training/test_configs.py",
    "make train-default-model": "tests/experiments/training/test_configs.py",
    "make train-rogue CONFIG=paper": "tests/experiments/training/test_configs.py",
    "make train-rogue CONFIG=paper_balanced": "tests/experiments/training/test_configs.py",
    "make table-specular": "tests/experiments/commands/test_table.py",
    "make train-specular CONFIG=paper": "tests/experiments/training/test_configs.py",
    "make table-finegrained": "tests/experiments/commands/test_table.py",
    "make train-finegrained CONFIG=paper": "tests/experiments/training/test_configs.py",
    "make reconstruct ARGS=--camera": "tests/experiments/commands/test_webcam.py",
    "make reconstruct IMAGE=clip.mp4": "tests/experiments/commands/test_reconstruct_video.py",
    "make reconstruct IMAGE=folder ARGS=--same-person": "tests/experiments/commands/test_same_person.py",
    'make reconstruct IMAGES="a.jpg b.jpg"': "tests/experiments/commands/test_same_person.py",
    "make reconstruct CHECKPOINT=runs/finegrained/RUN/checkpoints/last.ckpt": (
        "tests/experiments/commands/test_reconstruct_detail.py"
    ),
    "make export": "tests/experiments/commands/test_export.py",
    "make face-model-ict": "tests/experiments/commands/test_prepare_face_model.py",
    "make reconstruct IMAGE=me.jpg FACE_MODEL=ict": "tests/experiments/commands/test_prepare_face_model.py",
    "make demo": "tests/experiments/commands/test_demo.py",
    "make demo CHECKPOINT=FILE": "tests/experiments/commands/test_demo.py",
    "make table-self_augmentation": "tests/experiments/commands/test_table.py",
    "make train-self_augmentation CONFIG=paper": "tests/experiments/training/test_configs.py",
    "make train-self_augmentation INIT=CHECKPOINT": "tests/experiments/training/test_configs.py",
    "make train-default-model RESUME=auto": "tests/experiments/training/test_configs.py",
    "make table-mgcnet": "tests/experiments/commands/test_table.py",
    "make train-mgcnet CONFIG=paper": "tests/experiments/training/test_configs.py",
}


def commands() -> list[str]:
    """Lines of the READMEs' code blocks and inline code that begin with make, in order."""
    found = []
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        found += re.findall(r"^    (make .*?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
        found += re.findall(r"`(make [^`]+)`", text.replace("\n", " "))
    return list(dict.fromkeys(line.strip() for line in found))


def arguments(command: str) -> list[str]:
    """What `make` hands to `python -m experiments`."""
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "python"
        stand_in.write_text("#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done\n")
        stand_in.chmod(0o755)
        words = [*shlex.split(command), f"BIN={folder}", "-o", ".venv/.installed", "--no-print-directory"]
        printed = subprocess.run([*words, "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    return printed.split("\0")[2:-1]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a photograph, in which the README's relative paths hold."""
    from skimage.data import astronaut

    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "me.jpg", tmp_path / "photos" / "one.jpg"):
        Image.fromarray(np.asarray(astronaut())).save(path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_every_command_is_known() -> None:
    written = [command for command in commands() if "CHECKPOINT=" not in command]
    assert set(written) <= {*SMALL, *ELSEWHERE}
    assert set(SMALL) <= set(written)


def test_every_command_runs(elsewhere: Path) -> None:
    for command, small in SMALL.items():
        assert main([*arguments(command), *small]) == 0, command
    assert (elsewhere / "runs" / "reconstruct" / "me" / "mesh.glb").is_file()
    checkpoint = next(elsewhere.glob("runs/mgcnet/*/checkpoints/last.ckpt"))
    with_checkpoint = arguments(f"make reconstruct IMAGE=me.jpg OUT=again CHECKPOINT={checkpoint}")
    assert main(with_checkpoint) == 0
    assert (elsewhere / "again" / "report.html").is_file()
    assert main(arguments(f"make reconstruct IMAGE=sunglasses.png CHECKPOINT={checkpoint} ARGS=--no-fit")) == 0


def test_the_six_lines_of_python_run(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippet.splitlines()) == 6
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    shapes, picture, camera = capsys.readouterr().out.splitlines()[-3:]
    face = names["face"]
    assert shapes == f"({len(face.vertices)}, 3) ({len(face.faces)}, 3)"
    assert picture == f"{face.texture.shape} (68, 2)" and face.texture.shape[2] == 3
    assert camera == str(face.camera["focal_length"])
    # What the comments say: the astronaut's head is between ten and thirty centimetres high, and lies in the picture.
    assert 100 < np.ptp(face.vertices[:, 1]) < 300
    assert ((face.landmarks > 0) & (face.landmarks < 512)).all()


def test_pictures_and_links_exist() -> None:
    for readme in READMES:
        for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("../../actions/"):  # pages of the repository's host
                assert (readme.parent / target).exists(), f"{readme.name}: {target}"
