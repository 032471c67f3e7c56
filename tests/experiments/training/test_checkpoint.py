"""From a file back to a module; every other file is refused in one line, and nothing is unpickled."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.__main__ import main
from experiments.training.checkpoint import CONFIG_KEY, load_module
from experiments.training.stored_module import Trust
from lightning_modules.components.checkpoint_file import read_checkpoint
from renderers.io.errors import UserError
from tests.conf.tiny import TinyModule

MINE = Trust(modules=("tests.conf.tiny",))
CONFIG = str(Path(__file__).parents[2] / "conf/tiny.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run that changed defaults, away from its run folder."""
    folder = tmp_path_factory.mktemp("trained")
    overrides = ["--model.init_args.weights.prior=0.25", "--data.init_args.size=5", "--model.init_args.hidden=6"]
    assert main(["fit", "--config", CONFIG, f"--runs_dir={folder}", "--run_id=a", *overrides]) == 0
    return Path(shutil.copy(folder / "tiny/a/checkpoints/last.ckpt", folder / "alone.ckpt"))


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    contents = {**torch.load(source, weights_only=True), **changes}
    torch.save({name: value for name, value in contents.items() if value is not None}, target)
    return target


def test_a_checkpoint_alone_makes_its_module(trained: Path) -> None:
    module = load_module(trained, MINE)
    assert isinstance(module, TinyModule)
    assert not module.training
    assert module.weights.prior == 0.25
    # It followed from the data, which is not there any more.
    assert module.image_size == 5
    stored = torch.load(trained, weights_only=True)["state_dict"]
    torch.testing.assert_close(dict(module.state_dict()), dict(stored), rtol=0, atol=0)
    assert module(torch.rand(2, 3, 5, 5)).shape == (2, 3)


class Bomb:
    """Pickled code that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trace,)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "bomb.ckpt"
    torch.save({"state_dict": {}, "bomb": Bomb(trace)}, path)
    with pytest.raises(UserError, match="damaged, or not a checkpoint"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({"state_dict": {}, "bomb": Bomb(trace)}))
    with pytest.raises(UserError, match="damaged, or not a checkpoint"):
        read_checkpoint(path)
    assert not trace.exists()


def test_other_files_are_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_module(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="folder"):
        load_module(tmp_path)
    for name, contents in {"empty": b"", "text": b"not weights\n" * 50, "half": trained.read_bytes()[:3000]}.items():
        path = tmp_path / name
        path.write_bytes(contents)
        with pytest.raises(UserError, match="damaged, or not a checkpoint"):
            load_module(path)
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(UserError, match="no state_dict"):
        load_module(tmp_path / "list")


def test_a_checkpoint_of_another_face_model(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UserError, match="made for second, this run uses first"):
        load_module(rewritten(trained, tmp_path / "other", face_model="second"), MINE)


def test_a_checkpoint_of_another_version(tmp_path: Path, trained: Path) -> None:
    plan = torch.load(trained, weights_only=True)[CONFIG_KEY]

    def changed(name: str, **arguments: Any) -> Path:
        held = {**plan, "arguments": {**plan["arguments"], **arguments}}
        return rewritten(trained, tmp_path / name, **{CONFIG_KEY: held})

    with pytest.raises(UserError, match=r"another version of tests\.conf\.tiny\.TinyModule .* argument 'width'"):
        load_module(changed("renamed", width=6), MINE)
    with pytest.raises(UserError, match="do not fit this module: size mismatch"):
        load_module(changed("resized", hidden=7), MINE)
    with pytest.raises(UserError, match="missing: no such face model"):
        load_module(changed("missing", face_model="missing"), MINE)
    with pytest.raises(UserError, match="does not say which module"):
        load_module(rewritten(trained, tmp_path / "silent", **{CONFIG_KEY: None}))


def test_a_checkpoint_of_before_is_read(tmp_path: Path, trained: Path) -> None:
    """YAML with class paths, an optimizer among the arguments."""
    section = {
        "class_path": "tests.conf.tiny.TinyModule",
        "init_args": {
            "image_size": 5,
            "hidden": 6,
            "weights": {"color": 1.0, "prior": 0.25},
            "part": {"class_path": "tests.conf.tiny.make_part", "init_args": {"prefix": "ab"}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}},
            "init_weights": "gone.ckpt",
        },
    }
    module = load_module(rewritten(trained, tmp_path / "old", **{CONFIG_KEY: yaml.safe_dump(section)}), MINE)
    assert isinstance(module, TinyModule)
    assert module.part is not None
    assert (module.image_size, module.weights.prior, module.part.name) == (5, 0.25, "ab")


def test_a_class_of_ones_own_is_asked_for(trained: Path) -> None:
    with pytest.raises(UserError, match=r"TinyModule', which no checkpoint .* --trust-classes tests\.conf\.tiny$"):
        load_module(trained)
    with pytest.raises(UserError, match="--trust-classes"):
        load_module(trained, Trust(modules=("tests.conf.tin", "tests.conf.tiny.more")))
    assert isinstance(load_module(trained, Trust(modules=("tests.conf",))), TinyModule)
