"""Which face of a frame is which of the frame before."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

FARTHEST = 1.0  # sides of its box that a face is at most from where it was expected
COASTING = 3  # frames without a face for which it is expected to go on as it moved
FORGOTTEN = 15  # frames without a face after which its number is not given again
THUMBNAIL = 32  # pixels along a side
CUT = 0.5  # correlation of two frames' thumbnails below which they do not show the same scene


def sequence_name(path: Path) -> str:
    """What the frames of one sequence have in common: the name without its last number."""
    number = re.search(r"\d+(?=\D*$)", path.stem)
    return path.name if number is None else f"{path.stem[: number.start()]}#{path.stem[number.end() :]}{path.suffix}"


@dataclass(frozen=True)
class _Track:
    """Where a face was last seen: its (4,) box, how that moves by frame, and the number of the frame."""

    box: np.ndarray
    step: np.ndarray
    frame: int

    def expected(self, frame: int) -> np.ndarray:
        centre_step = (self.step[:2] + self.step[2:]) / 2
        return self.box + np.tile(centre_step, 2) * min(frame - self.frame, COASTING)


class FaceTracker:
    """Numbers the faces of a sequence of frames, so that a number stays with its person.

    The faces of the first frame are numbered from 1 from left to right. From then on each is expected to move on as it
    did, and the faces take the numbers of those expected nearest, all together by the least sum of distances (the
    Hungarian method); who is new takes the next number. Where the size of the frames changes, or the scene, numbers
    begin at 1 again.

    Attributes:
        first: the frame where the numbers began.
    """

    def __init__(self) -> None:
        self.first = ""
        self._scene_before: Callable[[], np.ndarray | None] = lambda: None
        self._seen: dict[int, _Track] = {}
        self._frame, self._next = 0, 1

    def follow(self, name: str, picture: np.ndarray, boxes: np.ndarray) -> list[int]:
        """The numbers of a frame's faces.

        Args:
            name: of the frame.
            picture: (H, W, 3) uint8.
            boxes: (N, 4) left, top, right, bottom, from left to right.
        """
        return self.follow_scene(name, scene_of(picture), boxes)

    def follow_scene(self, name: str, scene: np.ndarray, boxes: np.ndarray) -> list[int]:
        """As `follow`, of a frame of which the `scene_of` is all that is known."""
        before = self._scene_before()
        if before is None or not same_scene(before, scene):
            self._begin(name)
        self._scene_before, self._frame = lambda: scene, self._frame + 1
        known = [number for number, track in self._seen.items() if self._frame - track.frame <= FORGOTTEN]
        expected = [self._seen[number].expected(self._frame) for number in known]
        numbers = dict(_matches(boxes, np.array(expected).reshape(-1, 4)))
        answer = []
        for row, box in enumerate(boxes):
            number = known[numbers[row]] if row in numbers else self._next
            self._note(number, box)
            answer.append(number)
        return answer

    def recall(self, first: str, read: Callable[[], np.ndarray], numbered: Mapping[int, np.ndarray]) -> None:
        """Take in a frame whose faces an earlier run numbered.

        Args:
            first: `FaceTracker.first` at that time.
            read: gives the frame, (H, W, 3) uint8; called only if the next frame is a new one.
            numbered: number -> (4,) box.
        """
        if first != self.first:
            self._begin(first)
        self._scene_before, self._frame = lambda: scene_of(read()), self._frame + 1
        for number, box in numbered.items():
            self._note(number, box)

    def _begin(self, first: str) -> None:
        self.first, self._seen, self._next = first, {}, 1

    def _note(self, number: int, box: np.ndarray) -> None:
        step, before = np.zeros(4), self._seen.get(number)
        if before is not None:
            # Half of what was known before: detectors' boxes tremble.
            step = (before.step + (box - before.box) / (self._frame - before.frame)) / 2
        self._seen[number] = _Track(box, step, self._frame)
        self._next = max(self._next, number + 1)


def _matches(boxes: np.ndarray, before: np.ndarray) -> list[tuple[int, int]]:
    """Rows of (N, 4) `boxes` and (M, 4) `before` that belong together."""
    centres, others = (boxes[:, :2] + boxes[:, 2:]) / 2, (before[:, :2] + before[:, 2:]) / 2
    sides = (before[:, 2:] - before[:, :2]).mean(axis=1)
    distances = np.linalg.norm(centres[:, None] - others[None], axis=2) / sides
    # A pair that is too far apart costs more than all near pairs together, so that it never replaces one of them.
    cost = np.where(distances < FARTHEST, distances, 10.0 * (1 + min(distances.shape)))
    return [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(cost), strict=True) if distances[i, j] < FARTHEST]


def scene_of(picture: np.ndarray) -> np.ndarray:
    """Height, width, and the picture's (`THUMBNAIL`^2,) grey values in [0, 255]."""
    small = cv2.resize(picture, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).mean(axis=2)
    return np.array([*picture.shape[:2], *small.flat])


def same_scene(one: np.ndarray, other: np.ndarray) -> bool:
    if (one[:2] != other[:2]).any():
        return False
    first, second = one[2:] - one[2:].mean(), other[2:] - other[2:].mean()
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return size < 1e-6 or float(first @ second) >= CUT * size
