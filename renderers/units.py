"""Units of length: decimetres inside the project, other units outside."""

from __future__ import annotations

MILLIMETRES = 100.0  # in a decimetre
MILLIMETRES_PER_METRE = 1000.0
