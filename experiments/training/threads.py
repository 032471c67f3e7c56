"""How OpenMP's threads wait for each other: asleep, not in a loop."""

from __future__ import annotations

import os

# GNU's OpenMP spins by default. Beside a busy process a spinning thread takes the core from the one it waits for, and
# many small operations become 2 to 13 times slower. Without neighbours, sleeping costs nothing that can be measured.
SLEEPING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}


def let_waiting_threads_sleep() -> None:
    """Sets `SLEEPING` for this process and its children. Call it before torch is imported; set variables are kept."""
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)
