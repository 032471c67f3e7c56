"""Signals that wait until a training step is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer

Handler = Callable[[int, FrameType | None], Any]

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
ENDS_SOON = b"\nmonoface: ends after this step, with a checkpoint; once more ends it at once\n"


class DeferredSignals:
    """Ctrl-C, SIGTERM and SLURM's SIGUSR1, which come in the middle of a step, half of which no checkpoint can hold.

    Between `hold` and `release` a signal is noted only; `answer` does what it asks for. Ctrl-C a second time does it at
    once.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._noted: set[int] = set()

    def hold(self, trainer: Trainer) -> None:
        """Takes over the signals that this process would answer at once."""
        if threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGUSR1] if SLURMEnvironment.detect() else []
        if trainer.world_size == 1:  # Of many processes Lightning ends all at the same step by SIGTERM alone.
            numbers += [number for number in INTERRUPTS if signal.getsignal(number) is signal.default_int_handler]
        for number in numbers:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def release(self) -> None:
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        self._noted.clear()

    def answer(self, trainer: Trainer, before: Callable[[], None]) -> None:
        """Does what the signals noted since the last answer ask for, on all processes at the same step.

        Args:
            trainer: between two steps.
            before: is called before each of them is answered.

        Raises:
            KeyboardInterrupt: the run is to end.
        """
        for number, handler in self._handlers.items():
            if trainer.strategy.reduce_boolean_decision(number in self._noted, all=False):
                self._noted.discard(number)
                before()
                handler(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = number in self._noted
        self._noted.add(number)
        if number in INTERRUPTS:
            if again:
                self._handlers[number](number, frame)
            os.write(2, ENDS_SOON)  # `print` may be what was interrupted
