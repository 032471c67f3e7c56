"""Waiting threads sleep, unless the user says otherwise."""

from __future__ import annotations

import os

import pytest

from experiments.__main__ import main
from experiments.training.threads import SLEEPING


def test_every_command_lets_threads_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLEEPING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["--help"]) == 0
    assert {name: os.environ[name] for name in SLEEPING} == {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "0"}
