"""Checkpoint files that are damaged or hostile: refused in one line each, and nothing in them runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning import LightningModule
from torch import nn

from lightning_modules.components.checkpoint_file import load_weights, read_checkpoint, read_initial_weights
from renderers.io.errors import UserError

LAX = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Small(LightningModule):
    """One layer, and a face model that a checkpoint must name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        made_for = checkpoint.get("face_model")
        if made_for is not None and made_for["fingerprint"] != "mine":
            raise UserError("another face model")


def saved(path: Path, contents: Any) -> Path:
    torch.save(contents, path / "file.ckpt")
    return path / "file.ckpt"


def loaded(path: Path) -> None:
    load_weights(Small(), read_checkpoint(path), path)


def message(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        loaded(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def state(**changes: Any) -> dict[str, Any]:
    return {**Small().state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}


def test_a_whole_one_loads(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    path = saved(tmp_path, {"state_dict": state(layer__weight=weight), "face_model": {"fingerprint": "mine"}})
    module = Small()
    load_weights(module, read_initial_weights(module, path), path)
    assert torch.equal(module.layer.weight, weight)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ([1, 2], "it holds no state_dict"),
        ({"state_dict": 5}, "it holds no state_dict"),
        ({"state_dict": {1: torch.zeros(2)}}, "names weights by something else than text"),
        ({"state_dict": {}}, "Missing key(s)"),
        ({"state_dict": state(layer__weight=torch.zeros(2, 4))}, "size mismatch for layer.weight"),
        ({"state_dict": state(layer__weight="a text")}, "do not fit this module"),
        ({"state_dict": state(other=torch.zeros(1))}, "Unexpected key(s)"),
        ({"state_dict": state(layer__weight=torch.full((2, 3), torch.nan))}, "layer.weight holds values that are not"),
        ({"state_dict": state(), "face_model": "text"}, "what it says of its face model is unreadable"),
        ({"state_dict": state(), "face_model": {}}, "what it says of its face model is unreadable"),
        ({"state_dict": state(), "face_model": {"fingerprint": "other"}}, "another face model"),
    ],
)
def test_wrong_contents_are_named(tmp_path: Path, contents: Any, expected: str) -> None:
    assert expected in message(saved(tmp_path, contents))


class Bomb:
    """Pickled code that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("key", ["state_dict", "net_recon"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_code_is_not_run(tmp_path: Path, key: str, legacy: bool) -> None:
    path, trace = tmp_path / "bomb.pth", tmp_path / "trace"
    torch.save({key: {"weight": Bomb(trace)}}, path, _use_new_zipfile_serialization=not legacy)
    module = Small()
    module.regressor = nn.Identity()
    with pytest.raises(UserError, match="damaged, or not a checkpoint"):
        read_initial_weights(module, path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of bytes that were changed
@LAX
@given(data=st.data(), legacy=st.booleans())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject, legacy: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": state()}, buffer, _use_new_zipfile_serialization=not legacy)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file.ckpt"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        loaded(path)
    except UserError as error:
        assert "\n" not in str(error)
