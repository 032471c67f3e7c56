"""`reconstruct CLIP.mp4`: the person is followed, blinks and all; what is written agrees; bad files are told."""

from __future__ import annotations

import csv
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from skimage import data

from experiments.__main__ import main
from experiments.commands.reconstruct import command
from experiments.commands.reconstruct.output import check_replaceable
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.video import clip as video_clip
from experiments.commands.reconstruct.video import webcam
from experiments.commands.reconstruct.video.clip import reconstruct_clip
from experiments.commands.reconstruct.video.clip_file import ClipWriter, frames, is_video, look_through
from experiments.commands.reconstruct.video.following import Follower
from experiments.commands.reconstruct.video.motion import smooth_motion
from experiments.commands.reconstruct.video.parts import FrameTable
from experiments.commands.reconstruct.video.smoothing import smoothed
from experiments.fitting.photometric_fitting import FitSettings
from renderers.io.errors import UserError
from tests.conf.clip_errors import clip_errors
from tests.conf.drawn_clip import default_model, drawn_clip, write_clip

QUICK = FitSettings(photometric_iterations=2, landmark_rounds=2, expression_bounds=(0.0, 1.0))
COUNT, HIDDEN, CUT = 14, (5, 6), 10  # frames; those in which the face is covered; the first of another scene


@pytest.fixture(scope="module")
def pipeline() -> Iterator[ReconstructionPipeline]:
    """Three frames, fitted hastily, make the person."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_clip, "SPREAD", 3)
        yield ReconstructionPipeline(default_model(), detector="dlib", settings=QUICK)


def astronaut(shift: float, size: int = 256) -> np.ndarray:
    """(S, S, 3) uint8, her face `shift` pixels from the left of where it is in the crop."""
    matrix = np.array([[1.0, 0, shift - 96], [0, 1, 0]])
    return cv2.warpAffine(data.astronaut(), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """She moves to the right by 2 pixels a frame, is covered for two frames, and is mirrored after a cut."""
    pictures = [astronaut(2.0 * number) for number in range(COUNT)]
    for number in HIDDEN:
        pictures[number][20:180] = 128
    pictures[CUT:] = [np.ascontiguousarray(255 - 0.8 * (255 - picture[:, ::-1])) for picture in pictures[CUT:]]
    path = Path(tmp_path_factory.mktemp("film")) / "clip.mp4"
    write_clip(path, np.stack(pictures).astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, film: Path, pipeline: ReconstructionPipeline) -> Path:
    out = Path(tmp_path_factory.mktemp("video")) / "out"
    reconstruct_clip(film, out, pipeline)
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "frames.csv").open() as file:
        return list(csv.DictReader(file))


def test_frames_without_the_face_are_bridged_and_marked(result: Path) -> None:
    rows = rows_of(result)
    assert [row["status"] for row in rows] == ["interpolated" if k in HIDDEN else "found" for k in range(COUNT)]
    assert [int(row["scene"]) for row in rows] == [0] * CUT + [1] * (COUNT - CUT)
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], np.arange(COUNT) / 25, atol=1e-3)
    # Nose and all move by 2 pixels a frame, where she is covered, too.
    places = np.array([projected(result, row)[:, 0].mean() for row in rows[:CUT]])
    np.testing.assert_allclose(np.diff(places), 2.0, atol=0.5)
    record = json.loads((result / "reconstruction.json").read_text())
    assert record["status"] == {"found": COUNT - 2, "interpolated": 2, "absent": 0}
    check_replaceable(result)
    assert not result.with_name("out.parts").exists()


def projected(out: Path, row: dict[str, str]) -> np.ndarray:
    """(V, 2) the moved mesh's vertices in a frame, by the table alone."""
    tree, body = read_glb(out / "animation.glb")
    vertices = 1000 * moved(tree, body, int(row["frame"]), posed=False)
    matrix = np.array([[float(row[f"projection_{r}{c}"]) for c in (1, 2, 3, 4)] for r in (1, 2, 3)])
    points = np.column_stack([vertices, np.ones(len(vertices))]) @ matrix.T
    return points[:, :2] / points[:, 2:]


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 12)
    return json.loads(content[20 : 20 + length]), content[28 + length :]


def numbers(tree: dict[str, Any], body: bytes, accessor: int) -> np.ndarray:
    """An accessor's rows, sparse ones included (glTF 2.0, section 3.6.2)."""
    held = tree["accessors"][accessor]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[held["type"]]

    def view(number: int, kind: str, count: int) -> np.ndarray:
        start = tree["bufferViews"][number]["byteOffset"]
        return np.frombuffer(body, kind, count, start)

    if "sparse" not in held:
        return view(held["bufferView"], "<f4", held["count"] * width).reshape(-1, width)
    sparse, values = held["sparse"], np.zeros((held["count"], width))
    rows = view(sparse["indices"]["bufferView"], "<u4", sparse["count"])
    values[rows] = view(sparse["values"]["bufferView"], "<f4", sparse["count"] * width).reshape(-1, width)
    return values


def moved(tree: dict[str, Any], body: bytes, frame: int, posed: bool = True) -> np.ndarray:
    """(V, 3) metres: the mesh as a player shows it in a frame."""
    (animation,), (mesh,) = tree["animations"], tree["meshes"]
    tracks = {c["target"]["path"]: animation["samplers"][c["sampler"]]["output"] for c in animation["channels"]}
    primitive = mesh["primitives"][0]
    weights = numbers(tree, body, tracks["weights"]).reshape(-1, len(mesh["weights"]))[frame]
    points = numbers(tree, body, primitive["attributes"]["POSITION"]).astype(float)
    for weight, target in zip(weights, primitive["targets"], strict=True):
        points = points + weight * numbers(tree, body, target["POSITION"])
    if not posed:
        return points
    rotation = Rotation.from_quat(numbers(tree, body, tracks["rotation"])[frame])
    return rotation.apply(points) + numbers(tree, body, tracks["translation"])[frame]


def test_the_animation_seen_by_its_camera_is_what_the_table_says(result: Path) -> None:
    tree, body = read_glb(result / "animation.glb")
    (camera,) = tree["cameras"]
    (place,) = [node["translation"] for node in tree["nodes"] if "camera" in node]
    focal = 128 / np.tan(camera["perspective"]["yfov"] / 2)
    for frame in (0, 5, COUNT - 1):
        seen = moved(tree, body, frame) - place
        pixels = 128 + focal * seen[:, :2] * [1, -1] / -seen[:, 2:]
        np.testing.assert_allclose(pixels, projected(result, rows_of(result)[frame]), atol=0.05)
    (sampler, *_) = tree["animations"][0]["samplers"]
    assert sampler["interpolation"] == "LINEAR"
    times = numbers(tree, body, sampler["input"])[:, 0]
    np.testing.assert_allclose(times, [float(row["seconds"]) for row in rows_of(result)], atol=1e-4)
    mesh = trimesh.load(result / "mesh.obj", process=False)
    # Each part of the mesh is a primitive of its own, with vertices of its own.
    parts = [numbers(tree, body, part["attributes"]["POSITION"]) for part in tree["meshes"][0]["primitives"]]
    positions = 1000 * np.concatenate(parts)
    for one, other in ((positions, mesh.vertices), (mesh.vertices, positions)):
        assert cKDTree(other).query(one)[0].max() < 0.01


def test_the_film_shows_the_clip_and_beside_it_the_face(result: Path, film: Path) -> None:
    shown, taken = list(frames(result / "video.mp4")), list(frames(film))
    assert len(shown) == COUNT and shown[0].pixels.shape == (256, 512, 3)
    for one, other in zip(shown, taken, strict=True):
        assert abs(one.seconds - other.seconds) < 1e-3
        assert np.abs(one.pixels[:, :256].astype(int) - other.pixels).mean() < 4  # two lossy encodings
        face = np.abs(one.pixels[:, 256:].astype(int) - other.pixels).mean(axis=2) > 12
        assert 0.02 < face.mean() < 0.6 and face[:, :8].mean() < 0.02


def test_an_interrupted_run_goes_on_and_ends_as_another(
    tmp_path: Path, film: Path, pipeline: ReconstructionPipeline, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, followed = tmp_path / "out", list[int]()
    monkeypatch.setattr(video_clip, "CHUNK", 4)
    real: Callable[..., Any] = Follower.follow

    def follow(self: Follower, frame: Any) -> Any:
        if frame.number == 9 and 9 not in followed:
            followed.append(9)
            raise KeyboardInterrupt
        followed.append(frame.number)
        return real(self, frame)

    monkeypatch.setattr(Follower, "follow", follow)
    with pytest.raises(KeyboardInterrupt, match=r"8 of 14 frames are finished.*reconstruct .*clip.mp4 again to go on"):
        reconstruct_clip(film, out, pipeline)
    assert not out.exists()
    followed[:] = [9]
    reconstruct_clip(film, out, pipeline)
    assert followed == [9, *range(8, COUNT)]
    for one, other in zip(rows_of(out), rows_of(result), strict=True):
        assert one["status"] == other["status"]
        for name in ("yaw", "x", "z"):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=0.3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_finished_video_is_not_made_again(
    film: Path, pipeline: ReconstructionPipeline, result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (result / "video.mp4").stat().st_mtime_ns
    reconstruct_clip(film, result, pipeline)
    assert "finished already" in capsys.readouterr().out
    assert (result / "video.mp4").stat().st_mtime_ns == before


def test_a_cameras_recording_is_reconstructed_and_kept(
    tmp_path: Path, film: Path, pipeline: ReconstructionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webcam, "find_webcam", lambda name: webcam.Webcam(f"movie={film}", "lavfi"))
    monkeypatch.setattr(command, "_pipeline", lambda args: pipeline)
    assert main(["reconstruct", "--camera", "--out", str(tmp_path / "me")]) == 0
    assert [row["status"] for row in rows_of(tmp_path / "me")].count("found") >= COUNT - 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["me", "me.mp4"]


@pytest.mark.slow
def test_of_two_people_one_is_followed_and_it_says_so(
    tmp_path: Path, pipeline: ReconstructionPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Her face, and smaller beside it another one that a detector takes for a face: hers again, upside up and dim."""
    small = cv2.resize(astronaut(0.0), (160, 160), interpolation=cv2.INTER_AREA)
    pictures = []
    for number in range(6):
        beside = np.full((256, 160, 3), 90, np.uint8)
        beside[40:200] = (0.7 * small[:, ::-1]).astype(np.uint8)
        pictures.append(np.hstack([astronaut(number), beside]))
    write_clip(tmp_path / "two.mp4", np.stack(pictures))
    reconstruct_clip(tmp_path / "two.mp4", tmp_path / "out", pipeline)
    assert "people        2 at once" in capsys.readouterr().out
    places = [projected(tmp_path / "out", row)[:, 0].mean() for row in rows_of(tmp_path / "out")]
    assert max(places) < 256


def test_bad_files_are_told(tmp_path: Path, pipeline: ReconstructionPipeline) -> None:
    grey = np.full((5, 64, 64, 3), 90, np.uint8)
    write_clip(tmp_path / "grey.mp4", grey)
    with pytest.raises(UserError, match=r"grey.mp4: no face found in 3 of its frames"):
        reconstruct_clip(tmp_path / "grey.mp4", tmp_path / "out", pipeline)
    whole = (tmp_path / "grey.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        for _ in range(3):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate = 16000
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    for name in ("cut", "text", "empty", "sound", "absent"):
        with pytest.raises(UserError, match=rf"{name}.mp4: (not a video|no video)"):
            reconstruct_clip(tmp_path / f"{name}.mp4", tmp_path / "out", pipeline)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.parts").exists()


def test_a_broken_video_is_a_user_error_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    assert main(["reconstruct", str(tmp_path / "text.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "text.mp4: not a video that can be read" in capsys.readouterr().err


def test_what_comes_before_the_damage_is_used(tmp_path: Path) -> None:
    """A transport stream is read as far as it goes; its end is overwritten."""
    path = tmp_path / "clip.mkv"
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5", "g": "1"})
        stream.height = stream.width = 64
        for _ in range(20):
            picture = av.VideoFrame.from_ndarray(generator.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    path.write_bytes(content[: int(0.6 * len(content))])
    found = look_through(path, 4)
    assert 8 <= found.count <= 14
    assert [frame.number for frame in found.spread][:2] == [0, 4] and len(found.spread) == 4


def test_a_phones_video_is_turned_upright(tmp_path: Path) -> None:
    """The track's header says how the picture is turned (ISO 14496-12, section 8.3.2): here clockwise."""
    picture = np.zeros((3, 64, 96, 3), np.uint8)
    picture[:, :32, :48] = 255  # the upper left quarter
    path = tmp_path / "phone.mp4"
    write_clip(path, picture)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(content))
    first = next(iter(frames(path))).pixels
    assert first.shape == (96, 64, 3)
    assert first[:40, 40:].mean() > 240 and first[:40, :24].mean() < 15 and first[56:].mean() < 15


def test_frames_keep_their_times(tmp_path: Path) -> None:
    """Phones take frames at uneven times."""
    times = [0.0, 0.04, 0.1, 0.11, 0.3]
    writer = ClipWriter(tmp_path / "uneven.mp4", (64, 64), 25.0)
    for seconds in times:
        writer.add(np.full((64, 64, 3), 90, np.uint8), seconds)
    writer.close()
    assert [round(frame.seconds, 3) for frame in frames(tmp_path / "uneven.mp4")] == times


@pytest.mark.parametrize(
    ("name", "expected"), [("a.mp4", True), ("a.mov", True), ("a.jpg", False), ("a.gif", False), ("a.txt", False)]
)
def test_a_video_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_video(Path(name)) is expected


def test_a_video_without_a_name_is_known_by_its_content(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", np.zeros((3, 64, 64, 3), np.uint8))
    (tmp_path / "a.mp4").rename(tmp_path / "video")
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "picture")
    (tmp_path / "words").write_text("neither")
    assert [is_video(tmp_path / name) for name in ("video", "picture", "words")] == [True, False, False]


@pytest.mark.parametrize("hertz", [0.5, 2.0, 6.0])
def test_smoothing_takes_from_a_wave_what_the_formula_says_and_no_time(hertz: float) -> None:
    seconds, middle = np.arange(400) / 30, slice(60, 340)
    waves = np.stack([np.sin(2 * np.pi * hertz * seconds), np.cos(2 * np.pi * hertz * seconds)], axis=1)
    found = smoothed(seconds, waves, 3.0)
    expected = waves / (1 + (hertz / 3.0) ** 4)
    np.testing.assert_allclose(found[middle], expected[middle], atol=0.01)


def test_smoothing_bridges_a_gap_and_stops_at_a_cut() -> None:
    count = 60
    seconds, found = np.arange(count) / 30, np.ones(count, bool)
    found[[20, 21, 22]] = found[:2] = False
    scene = np.repeat([0, 1], 30)
    yaw = np.where(scene == 0, 0.01 * np.arange(count), -1.0)
    table = FrameTable(
        seconds=seconds,
        found=found,
        scene=scene,
        landmarks=np.zeros((count, 68, 2)),
        angles=np.where(found, yaw, 0.0)[:, None] * [0, 1, 0],
        translation=np.zeros((count, 3)),
        expression=np.zeros((count, 2)),
        illumination=np.zeros((count, 27)),
    )
    motion = smooth_motion(table, ("jawOpen", "eyeBlinkLeft"), (0.0, 1.0))
    np.testing.assert_allclose(motion.angles[2:, 1], yaw[2:], atol=1e-6)
    assert motion.angles[0, 1] == pytest.approx(yaw[2], abs=1e-6)
    assert list(motion.status[:3]) == ["absent", "absent", "found"] and set(motion.status[20:23]) == {"interpolated"}


@pytest.mark.slow
def test_a_drawn_clip_is_followed_without_jitter_lag_or_lost_blinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten seconds; nothing was chosen on this person."""
    from experiments.commands.reconstruct.loading import load_pipeline

    drawn, tables = drawn_clip(10.0, person=9), list[FrameTable]()
    write_clip(tmp_path / "clip.mp4", drawn.frames)
    real: Callable[..., Any] = smooth_motion

    def noting(table: FrameTable, *rest: Any) -> Any:
        tables.append(table)
        return real(table, *rest)

    monkeypatch.setattr(video_clip, "smooth_motion", noting)
    pipeline, clock = load_pipeline(), time.process_time()
    reconstruct_clip(tmp_path / "clip.mp4", tmp_path / "out", pipeline)
    seconds = (time.process_time() - clock) / len(drawn.frames)  # of all cores, the person's solution included
    model, rows = default_model(), rows_of(tmp_path / "out")
    angles = np.radians([[float(row[name]) for name in ("pitch", "yaw", "roll")] for row in rows])
    expression = np.array([[float(row[name]) for name in model.expression_names] for row in rows])
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    identity = torch.tensor(record["identity"])
    found = clip_errors(model, drawn, angles, identity, expression)
    alone = clip_errors(model, drawn, tables[0].angles, identity, tables[0].expression)
    with capsys.disabled():
        print(f"\nframe by frame {alone}\nsmoothed {found}\n{1000 * seconds:.0f} ms of a core for each frame")
    assert found.jitter < alone.jitter / 3
    assert np.abs(found.lags).max() <= 1
    assert found.blink_share > 0.8 and found.lid_correlation > 0.75
    assert found.angle_error < 3
    assert seconds < 0.2  # 10 frames a second of two cores
