"""What is known of a clip's frames, chunk by chunk on disk, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from experiments.commands.reconstruct.output import entries, marker_text, read_marker
from renderers.io.atomic_file import write_bytes
from renderers.io.errors import UserError
from renderers.io.npz_file import NpzError, read_npz

MARKER = "parts.json"
CHUNK = 48  # frames that are solved at once


@dataclass(frozen=True)
class Frames:
    """T frames of one person.

    Attributes:
        seconds: (T,).
        scene: (T,) number of the stretch without a cut.
        angles: (T, 3) radians.
        translation: (T, 3) decimetres.
        expression: (T, E).
        illumination: (T, 27).
    """

    seconds: np.ndarray
    scene: np.ndarray
    angles: np.ndarray
    translation: np.ndarray
    expression: np.ndarray
    illumination: np.ndarray


@dataclass(frozen=True)
class FrameTable(Frames):
    """What was measured in each frame; where nobody was found the numbers are 0.

    Attributes:
        found: (T,) bool.
        landmarks: (T, 68, 2) frame pixels.
    """

    found: np.ndarray
    landmarks: np.ndarray

    @classmethod
    def joined(cls, tables: Sequence[FrameTable]) -> FrameTable:
        """One after the other."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})


class Parts:
    """The folder beside a result in which it grows; removed when the result is there.

    Args:
        out: where the result will be.
        made_with: all that the chunks depend on; chunks of anything else are thrown away.

    Raises:
        UserError: something else lies in the folder's place, or it cannot be written.
    """

    def __init__(self, out: Path, made_with: dict[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.parts")
        earlier = read_marker(self.folder / MARKER)
        if not earlier and self.folder.exists() and entries(self.folder):
            raise UserError(
                f"{self.folder}: is needed for what is not finished, and holds something else; move it away"
            )
        if earlier.get("made_with") != made_with:
            self.remove()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be written ({error.strerror}); choose another OUT") from error
        write_bytes(self.folder / MARKER, marker_text({"made_with": made_with}))

    def read(self, number: int) -> FrameTable | None:
        """A chunk of an earlier run, or None."""
        arrays = self.arrays(f"{number:06d}")
        names = {field.name for field in fields(FrameTable)}
        return None if arrays is None or set(arrays) != names else FrameTable(**arrays)

    def write(self, number: int, table: FrameTable) -> None:
        """Keep a chunk."""
        self.keep(f"{number:06d}", vars(table))

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays that were kept by that name; None where there are none, or a damaged file."""
        path = self.folder / f"{name}.npz"
        try:
            return read_npz(path) if path.exists() else None
        except (NpzError, OSError):
            return None

    def keep(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write arrays in one step."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.folder / f"{name}.npz", buffer.getvalue())

    def remove(self) -> None:
        """Delete what this class has written."""
        for path in [*self.folder.glob("*.npz"), self.folder / MARKER]:
            path.unlink(missing_ok=True)
        if self.folder.exists() and not entries(self.folder):
            shutil.rmtree(self.folder)
