"""`prepare photos` on folders with good, bad and changing photographs."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from datamodules.photo_folder import PhotoFolder
from datamodules.preparation.alignment import five_points
from datamodules.preparation.landmarks import DetectedFace
from datamodules.preparation.photo_file import read_photo
from datamodules.preparation.prepared_folder import PhotoIndex, read_face
from experiments.__main__ import main
from experiments.commands.prepare.photos import find_photos, prepare_photos
from experiments.commands.prepare.worker import face_name
from renderers.io.errors import UserError
from tests.conf.preparing import TEMPLATE, dlib_detector, prepare_quickly


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_quickly(monkeypatch)


def portrait() -> np.ndarray:
    return skimage.data.astronaut()[20:276, 90:346]


def save(path: Path, image: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(path, **options)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good photographs with seven faces among everything that can be wrong."""
    root = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x112] = 6
    save(root / "plain.png", portrait())
    save(root / "sub" / "plain.jpg", portrait()[:, ::-1], quality=92)
    save(root / "sub" / "deeper" / "größe 1.webp", portrait())
    save(root / "turned.jpg", np.rot90(portrait()), exif=exif, quality=92)
    save(root / "two.bmp", np.hstack([portrait(), portrait()[:, ::-1]]))
    save(root / "gray.png", cv2.cvtColor(portrait(), cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257)
    (root / "empty.jpg").touch()
    (root / "text.png").write_text("not a picture")
    (root / "cut.png").write_bytes((root / "plain.png").read_bytes()[:20_000])
    save(root / "small.png", portrait()[:20])
    save(root / "wall.png", np.full((60, 60, 3), 180, np.uint8))
    (root / "notes.txt").write_text("hello")
    save(root / ".thumbnails" / "plain.png", portrait())
    return root


SKIPPED = {
    "cut.png": "truncated",
    "empty.jpg": "empty",
    "small.png": "too small",
    "text.png": "not an image",
    "wall.png": "no face",
}


@pytest.fixture(scope="module")
def prepared(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, int]]:
    """The command's output folder, what it printed, and its exit code."""
    out = tmp_path_factory.mktemp("out") / "prepared"
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        prepare_quickly(patch)
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stderr(screen):
            code = main(["prepare", "photos", str(photos), "--out", str(out), "--workers", "1"])
    yield out, screen.getvalue(), code


def test_good_photographs_are_prepared_and_bad_ones_listed(prepared: tuple[Path, str, int]) -> None:
    out, screen, code = prepared
    assert code == 0
    index = PhotoIndex.load(out)
    found = {name: len(photo.faces) for name, photo in index.photos.items() if photo.faces}
    assert found == {
        "gray.png": 1, "plain.png": 1, "sub/deeper/größe 1.webp": 1, "sub/plain.jpg": 1, "turned.jpg": 1, "two.bmp": 2,
    }  # fmt: skip
    skipped = json.loads((out / "skipped.json").read_text())
    assert skipped.keys() == SKIPPED.keys()
    for name, reason in SKIPPED.items():
        assert reason in skipped[name] and "\n" not in skipped[name]
        assert f"{name}: {skipped[name]}" in screen
    assert "skipped 5 of 11" in screen and "1 .txt" in screen and "7 faces" in screen
    names = {f"{face.name}.png" for _, face in index.faces()}
    assert len(names) == 7
    for folder in ("images", "skin"):
        assert {path.name for path in (out / folder).iterdir()} == names
    assert {path.name for path in out.iterdir()} == {"images", "skin", "index.json", "skipped.json", "preview.jpg"}


def test_faces_with_doubtful_landmarks_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (face,) = dlib_detector().detect(portrait())
    spreads = iter([[0.4, 2.7, 3.1], [0.4, 0.5], [2.7]])  # of the faces of each photograph

    class Doubting:
        name, contour = "dlib", True

        def detect(self, image: np.ndarray) -> list[DetectedFace]:
            return [replace(face, spread=spread) for spread in next(spreads)]

    photos, out = tmp_path / "photos", tmp_path / "out"
    for name in ("a.png", "b.png", "c.png"):
        save(photos / name, portrait())
    monkeypatch.setattr("experiments.commands.prepare.photos.best_detector", lambda name: Doubting())
    screen = io.StringIO()
    with contextlib.redirect_stderr(screen):
        assert main(["prepare", "photos", str(photos), "--out", str(out), "--workers", "1"]) == 0
    index = PhotoIndex.load(out)
    assert {name: (len(photo.faces), photo.doubtful) for name, photo in index.photos.items()} == {
        "a.png": (1, 2), "b.png": (2, 0), "c.png": (0, 0),
    }  # fmt: skip
    skipped = json.loads((out / "skipped.json").read_text())
    assert skipped.keys() == {"a.png", "c.png"}
    assert skipped["a.png"] == "2 of its 3 faces, whose landmarks are doubtful"
    assert skipped["c.png"].startswith("doubtful face: its landmarks move by 2.7 %")
    assert "skipped 1 of 3" in screen.getvalue() and "2 faces of others" in screen.getvalue()


def test_crops_landmarks_and_skin_belong_together(prepared: tuple[Path, str, int], photos: Path) -> None:
    index = PhotoIndex.load(prepared[0])
    for name, face in index.faces():
        landmarks, matrix = np.array(face.landmarks), np.array(face.matrix)
        assert np.abs(five_points(landmarks) - TEMPLATE).max() < 15
        np.testing.assert_allclose(matrix[0, 0], matrix[1, 1])
        np.testing.assert_allclose(matrix[0, 1], -matrix[1, 0])
        image, skin = read_face(prepared[0], face.name)
        assert image.shape == (224, 224, 3) and skin.shape == (224, 224)
        # The stored map takes the photograph's pixels to the crop's: an independent resampling agrees.
        shift = matrix[:, :2].sum(axis=1) * 0.5 - 0.5
        centred = np.column_stack([matrix[:, :2], matrix[:, 2] + shift])
        warped = cv2.warpAffine(read_photo(photos / name), centred, (224, 224), borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(warped.astype(int) - image).mean() < 1
        cheek = landmarks[[1, 31, 48]].mean(axis=0).astype(int)
        assert skin[cheek[1], cheek[0]] > 200
        # The box holds the face: its centre lies near the nose.
        nose = np.linalg.solve(matrix[:, :2], landmarks[30] - matrix[:, 2])
        assert np.abs((np.array(face.box[:2]) + face.box[2:]) / 2 - nose).max() < 0.25 * (face.box[2] - face.box[0])


def test_preview_shows_a_pair_for_every_face(prepared: tuple[Path, str, int]) -> None:
    preview = read_photo(prepared[0] / "preview.jpg")
    assert preview.shape == (2 * 204, 4 * 404, 3)
    green = (preview[..., 1] > 200) & (preview[..., 0] < 150) & (preview[..., 2] < 150)
    red = (preview[..., 0].astype(int) - preview[..., 1] > 60) & (preview[..., 0] > 100)
    for cell in range(8):
        row, column = 204 * (cell // 4), 404 * (cell % 4)
        left = green[row : row + 204, column : column + 202].sum()
        right = red[row : row + 204, column + 202 : column + 404].mean()
        assert (left > 150 and right > 0.15) if cell < 7 else (left == 0 and right == 0)


def test_prepared_photographs_train(prepared: tuple[Path, str, int]) -> None:
    data = PhotoFolder(str(prepared[0]), size=96, batch_size=3, num_workers=0)
    batches = list(data.train_dataloader())
    assert batches and all(batch.image.shape[1:] == (3, 96, 96) for batch in batches)
    assert 0.1 < float(batches[0].skin.mean()) < 0.8


class _Counting:
    """The dlib detector, noting what it was asked; may be interrupted."""

    name, contour = "dlib", True

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.calls, self.interrupt_at, self.detector = 0, interrupt_at, dlib_detector()

    def detect(self, image: np.ndarray) -> list[DetectedFace]:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return self.detector.detect(image)


def install(patch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> _Counting:
    detector = _Counting(interrupt_at)
    patch.setattr("experiments.commands.prepare.photos.best_detector", lambda name: detector)
    return detector


def copies(root: Path, count: int) -> Path:
    small = cv2.resize(portrait(), (128, 128), interpolation=cv2.INTER_AREA)
    for number in range(count):
        save(root / f"{number}.png", np.clip(small.astype(int) + number, 0, 255).astype(np.uint8))
    return root


def test_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = copies(tmp_path / "in", 4), tmp_path / "out"
    command = ["prepare", "photos", str(source), "--out", str(out), "--workers", "1"]
    install(monkeypatch, interrupt_at=3)
    assert main(command) == 130
    assert "2 of 4 photographs are done; run the same command to go on" in " ".join(capsys.readouterr().err.split())
    assert sorted(PhotoIndex.load(out).photos) == ["0.png", "1.png"]
    assert len(list((out / "images").iterdir())) == 2
    detector = install(monkeypatch)
    assert main(command) == 0
    assert detector.calls == 2
    assert sorted(PhotoIndex.load(out).photos) == [f"{k}.png" for k in range(4)]
    detector = install(monkeypatch)
    assert main(command) == 0
    assert detector.calls == 0


def test_no_name_and_no_error_of_a_detector_stops_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """dlib's and torch's own errors are RuntimeErrors; names that are no UTF-8 are prepared, or told, like others."""
    source, out = copies(tmp_path / "in", 3), tmp_path / "out"
    (source / "0.png").rename(source / os.fsdecode(b"bad\xff.png"))
    (source / os.fsdecode(b"text\xfe.png")).write_text("not a picture")
    detector = install(monkeypatch)
    real = detector.detect

    def failing(image: np.ndarray) -> list[DetectedFace]:
        if detector.calls == 1:
            detector.calls += 1
            raise RuntimeError("Unsupported\nimage type")
        return real(image)

    monkeypatch.setattr(detector, "detect", failing)
    assert main(["prepare", "photos", str(source), "--out", str(out), "--workers", "1"]) == 0
    index, skipped = PhotoIndex.load(out), json.loads((out / "skipped.json").read_text())
    assert {name for name, _ in index.faces()} == {"1.png", os.fsdecode(b"bad\xff.png")}
    assert skipped == index.skipped() and skipped["2.png"] == "RuntimeError: Unsupported image type"
    assert "not an image" in skipped[os.fsdecode(b"text\xfe.png")]


def test_folders_that_are_links_are_told(tmp_path: Path) -> None:
    save(tmp_path / "in" / "sub" / "a.png", portrait())
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "sub")
    names, others = find_photos(tmp_path / "in", tmp_path / "out")
    assert names == ["sub/a.png"] and others == {"linked folders": 1}


def test_changed_lost_and_removed_photographs_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = copies(tmp_path / "in", 4), tmp_path / "out"
    (source / "bad.png").write_bytes(b"x")
    before = prepare_photos(source, out)
    save(source / "0.png", np.hstack([portrait(), portrait()]))  # changed: two faces now
    (out / "skin" / f"{face_name('1.png', 0)}.png").unlink()  # lost
    (source / "2.png").unlink()  # removed
    save(source / "bad.png", portrait())  # mended
    detector = install(monkeypatch)
    after = prepare_photos(source, out)
    assert detector.calls == 3
    assert {name: len(photo.faces) for name, photo in after.photos.items()} == {
        "0.png": 2,
        "1.png": 1,
        "3.png": 1,
        "bad.png": 1,
    }
    assert after.photos["3.png"] == before.photos["3.png"]
    assert {path.stem for path in (out / "images").iterdir()} == {face.name for _, face in after.faces()}
    assert json.loads((out / "skipped.json").read_text()) == {}
    (source / "0.png").write_bytes(b"")  # spoiled: its old faces go
    assert not prepare_photos(source, out).photos["0.png"].faces
    assert not list((out / "images").glob(f"{face_name('0.png', 0)[:-1]}*"))


def test_worker_processes_give_the_same(tmp_path: Path) -> None:
    source = copies(tmp_path / "in", 9)
    (source / "zero.jpg").touch()
    alone = prepare_photos(source, tmp_path / "alone", size=64, workers=1)
    together = prepare_photos(source, tmp_path / "together", size=64, workers=2)
    assert alone == together
    for folder in ("images", "skin"):
        for path in (tmp_path / "alone" / folder).iterdir():
            assert path.read_bytes() == (tmp_path / "together" / folder / path.name).read_bytes()


def test_largest_takes_one_face_of_each_photograph(tmp_path: Path) -> None:
    half = cv2.resize(portrait(), (128, 128), interpolation=cv2.INTER_AREA)
    save(tmp_path / "in" / "group.png", np.hstack([np.vstack([half, half]), portrait()]))
    assert len(prepare_photos(tmp_path / "in", tmp_path / "all").faces()) == 3
    ((_, face),) = prepare_photos(tmp_path / "in", tmp_path / "one", largest=True).faces()
    assert face.box[0] > 128  # the large one stands on the right


def test_damaged_index_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = copies(tmp_path / "in", 2), tmp_path / "out"
    good = prepare_photos(source, out)
    (out / "index.json").write_text('{"version": 1, "photos": ')
    assert prepare_photos(source, out) == good
    assert "everything is prepared anew" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("option", "told"), [({"size": 96}, "size = 64, not 96"), ({"largest": True}, "largest")])
def test_other_settings_ask_for_another_folder(tmp_path: Path, option: dict, told: str) -> None:
    source, out = copies(tmp_path / "in", 1), tmp_path / "out"
    prepare_photos(source, out, size=64)
    with pytest.raises(UserError, match=told):
        prepare_photos(source, out, **{"size": 64, **option})


def test_full_disk_is_told_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = copies(tmp_path / "in", 3), tmp_path / "out"
    replace, written = Path.replace, []

    def fill_up(self: Path, target: Path) -> Path:
        written.append(target)
        if target.suffix == ".png" and len(written) > 3:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fill_up)
    assert main(["prepare", "photos", str(source), "--out", str(out)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert list(PhotoIndex.load(out).photos) == ["0.png"]
    assert not list(out.rglob(".*"))


def test_users_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    file = tmp_path / "file.jpg"
    file.write_bytes(b"")
    hopeless = tmp_path / "hopeless"
    save(hopeless / "wall.png", np.full((48, 48, 3), 90, np.uint8))
    good = copies(tmp_path / "good", 1)
    out = str(tmp_path / "out")
    for arguments, told in [
        ([str(tmp_path / "missing"), "--out", out], "no such folder"),
        ([str(file), "--out", out], "not a folder"),
        ([str(empty), "--out", out], "holds no photographs"),
        ([str(hopeless), "--out", out], "none of the 1 photograph in"),
        ([str(good), "--out", str(tmp_path / "good" / ".." / "good")], "the folder of photographs itself"),
        ([str(good), "--out", str(file)], "is a file"),
        ([str(good), "--out", out, "--size", "7"], "whole number from 32"),
        ([str(good), "--out", out, "--workers", "many"], "whole number from 1"),
        ([str(good), "--out", out, "--detector", "haar"], "invalid choice"),
        ([str(good)], "--out"),
        ([], "KIND"),
    ]:
        command = ["prepare", "photos", *arguments] if arguments else ["prepare"]
        assert main(command) == 2
        last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monoface: error:")]
        assert len(last) == 1 and told in last[0], arguments
    assert not Path(out).exists()


def test_output_inside_the_input_is_not_prepared_again(tmp_path: Path) -> None:
    source = copies(tmp_path, 2)
    prepare_photos(source, source / "prepared")
    names, _ = find_photos(source, source / "prepared")
    assert names == ["0.png", "1.png"]


def test_face_names_are_plain_and_never_collide() -> None:
    sources = ["a/b.jpg", "a_b.jpg", "a/b.png", "a b.jpg", "größe.jpg", "大.jpg", "../x.jpg", "x" * 300 + ".jpg"]
    names = [face_name(source, number) for source in sources for number in (0, 1)]
    assert len(set(names)) == len(names)
    for name in names:
        assert (
            name.isascii()
            and len(name) < 64
            and set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
        )
