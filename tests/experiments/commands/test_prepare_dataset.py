"""`prepare DATASET` on a tiny copy of every data set, and every configuration's data on what comes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning import LightningDataModule

from datamodules.batch import CorruptedBatch, FaceBatch, MultiViewBatch
from datamodules.datasets.layouts import LAYOUTS, load_layout
from datamodules.preparation.prepared_folder import PhotoIndex, read_face
from experiments.__main__ import main
from renderers.io.errors import UserError
from tests.conf.fake_datasets import SIDE, WRITERS, fake_face, save_text, write_aflw2000, write_celeba
from tests.conf.fake_mgcnet_list import write_strip
from tests.conf.preparing import prepare_quickly

ROOT = Path(__file__).parents[3]
SIZE = 64
PHOTOGRAPHS = {
    "celeba": 6, "celebamask-hq": 3, "300w-lp": 7, "aflw2000": 3, "lfw": 6, "ls3d-w": 5, "multi-pie": 8, "micc": 8,
    "facescape": 4, "bu3dfe": 2, "frgc": 2, "now": 3,
}  # fmt: skip
TEST_ONLY = {"aflw2000", "micc", "facescape", "bu3dfe", "frgc", "now"}
PAPERS = ("finegrained", "mgcnet", "rogue", "self_augmentation", "specular")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_quickly(monkeypatch)


def prepare(name: str, source: Path, out: Path) -> int:
    command = ["prepare", name, str(source), "--out", str(out), "--size", str(SIZE), "--workers", "1"]
    return main(command)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose data/NAME are prepared, every one by the command."""
    root = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        prepare_quickly(patch)
        for name, write in WRITERS.items():
            assert prepare(name, write(root / "raw" / name), root / "data" / name) == 0
    shards = root / "data" / "celeba-shards"
    assert main(["prepare", "shards", str(root / "data" / "celeba"), "--out", str(shards)]) == 0
    return root


def write_mgcnet_list(root: Path) -> None:
    """Two single views and two groups of three, all of the same photograph."""
    image = np.stack([fake_face().image] * 3)
    for number in range(4):
        skin, points = image[..., 0], np.stack([fake_face().landmarks - 0.5] * 3)
        write_strip(root / "faces", f"{number}", image, skin, points)
    save_text(root / "train.txt", *(f"{k % 2} faces {k}" for k in range(4)))


@pytest.fixture
def at_home(house: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(house)
    yield house


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_photograph_becomes_a_face_with_its_owners_split(name: str, house: Path) -> None:
    index = PhotoIndex.load(house / "data" / name)
    assert index.dataset == name and len(index.photos) == PHOTOGRAPHS[name]
    layout = load_layout(name)
    records = {record.name: record.label for record in layout.records(house / "raw" / name)}
    for source, face in index.faces():
        label = index.photos[source].label
        assert label is not None
        assert (label.split, label.identity, label.group) == (
            records[source].split, records[source].identity, records[source].group,
        )  # fmt: skip
        image, skin = read_face(house / "data" / name, face.name, face.checksums)
        assert image.shape == (SIZE, SIZE, 3) and skin.shape == (SIZE, SIZE) and skin.any()
    assert len(index.faces()) == PHOTOGRAPHS[name] and not index.skipped()
    assert (index.detector == "given") == layout.gives_landmarks


@pytest.mark.parametrize("name", ["300w-lp", "aflw2000", "ls3d-w"])
def test_given_landmarks_are_the_ones_in_the_crop(name: str, house: Path) -> None:
    for source, face in PhotoIndex.load(house / "data" / name).faces():
        if "Flip" not in source:
            matrix = np.array(face.matrix)
            expected = fake_face().landmarks @ matrix[:, :2].T + matrix[:, 2]
            np.testing.assert_allclose(np.array(face.landmarks), expected, atol=2e-3)


def test_yaws_come_from_the_owner(house: Path) -> None:
    photos = PhotoIndex.load(house / "data" / "300w-lp").photos
    yaws = [round(photos[f"300W_LP/AFW/AFW_1_1_{view}.jpg"].label.yaw) for view in range(3)]
    assert yaws == [0, 20, 40]


def test_hand_drawn_skin_is_moved_with_the_face(house: Path) -> None:
    """The left half of the photograph, seen through an independent inverse warp of the crop's pixels."""
    index = PhotoIndex.load(house / "data" / "celebamask-hq")
    (face,) = index.photos["CelebA-HQ-img/1.jpg"].faces
    _, skin = read_face(house / "data" / "celebamask-hq", face.name)
    matrix = np.array(face.matrix)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    inverse = cv2.invertAffineTransform(matrix)
    photo_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    photo_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
    inside = (photo_x > 2) & (photo_y > 2) & (photo_x < SIDE - 2) & (photo_y < SIDE - 2)
    sure = inside & (abs(photo_x - SIDE / 2) > 3)
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(skin[sure] > 127, (photo_x < SIDE / 2)[sure])


def test_dropped_photographs_are_told_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_aflw2000(tmp_path / "raw")
    good, cut, wrong = sorted((root / "AFLW2000").glob("*.jpg"))
    cut.write_bytes(cut.read_bytes()[:900])
    wrong.with_suffix(".mat").write_bytes(b"MATLAB 5.0 MAT-file")
    assert prepare("aflw2000", root, tmp_path / "out") == 0
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert skipped.keys() == {f"AFLW2000/{cut.name}", f"AFLW2000/{wrong.name}"}
    assert "truncated" in skipped[f"AFLW2000/{cut.name}"]
    assert "not a MATLAB file" in skipped[f"AFLW2000/{wrong.name}"]
    screen = " ".join(capsys.readouterr().err.split())
    assert "skipped 2 of 3 photographs" in screen and "images/s on 1 process" in screen
    # The annotation is mended: its photograph, and it alone, is prepared on the next run.
    shutil.copy(good.with_suffix(".mat"), wrong.with_suffix(".mat"))
    assert prepare("aflw2000", root, tmp_path / "out") == 0
    assert "2 of them prepared already" in " ".join(capsys.readouterr().err.split())
    assert len(PhotoIndex.load(tmp_path / "out").faces()) == 2


def test_landmarks_outside_the_picture_are_told(tmp_path: Path) -> None:
    import scipy.io

    root = write_aflw2000(tmp_path / "raw")
    pose = {"Pose_Para": np.zeros((1, 7)), "roi": np.zeros((1, 4))}
    for name, points in (("image00002", np.full((3, 68), 5.0)), ("image00003", 1e4 + np.arange(204.0).reshape(3, 68))):
        scipy.io.savemat(root / "AFLW2000" / f"{name}.mat", {"pt3d_68": points, **pose})
    assert prepare("aflw2000", root, tmp_path / "out") == 0
    reasons = list(PhotoIndex.load(tmp_path / "out").skipped().values())
    assert "too small a face" in reasons[0] and "outside the photograph" in reasons[1]


def test_listed_photographs_that_are_missing_are_told(tmp_path: Path) -> None:
    root = write_celeba(tmp_path / "raw")
    (root / "img_align_celeba" / "000002.jpg").unlink()
    assert prepare("celeba", root, tmp_path / "out") == 0
    assert PhotoIndex.load(tmp_path / "out").skipped() == {"img_align_celeba/000002.jpg": "no such file"}


def test_new_lists_change_the_split_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_celeba(tmp_path / "raw")
    assert prepare("celeba", root, tmp_path / "out") == 0
    before = PhotoIndex.load(tmp_path / "out")
    save_text(root / "list_eval_partition.txt", *(f"{path.name} 1" for path in (root / "img_align_celeba").iterdir()))
    capsys.readouterr()
    assert prepare("celeba", root, tmp_path / "out") == 0
    assert "6 of them prepared already" in " ".join(capsys.readouterr().err.split())
    after = PhotoIndex.load(tmp_path / "out")
    assert {photo.label.split for photo in after.photos.values()} == {"val"}
    assert after.faces() == before.faces()


def test_users_mistakes_are_one_line_and_exit_code_2(
    tmp_path: Path, house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = house / "raw" / "celeba", tmp_path / "out"
    for name, source, told in (
        ("celeba", tmp_path / "missing", "no such folder"),
        ("lfw", raw, "not laid out as LFW"),
        ("aflw2000", house / "raw" / "lfw", "not laid out as AFLW2000-3D"),
        ("imagenet", raw, "invalid choice"),
    ):
        assert prepare(name, source, out) == 2
        last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("monoface: error:")]
        assert len(last) == 1 and told in last[0]
        assert not out.exists()
    assert prepare("celeba", raw, house / "data" / "lfw") == 2
    assert "was prepared with" in capsys.readouterr().err
    assert main(["prepare", "photos", str(raw), "--out", str(house / "data" / "celeba"), "--size", str(SIZE)]) == 2
    assert "was prepared with" in capsys.readouterr().err


def built(section: dict[str, Any]) -> LightningDataModule:
    """The data module that a configuration's section describes, as the command line builds it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    return parser.instantiate(parser.parse_object({"data": section})).data


def little(section: dict[str, Any]) -> dict[str, Any]:
    """A section with batches of one, read by this process; of a module that wraps another, the inner one's."""
    arguments = dict(section["init_args"])
    if "data" in arguments:
        return {**section, "init_args": {**arguments, "data": little(arguments["data"])}}
    # The copies without landmarks of their own were prepared with dlib.
    kinds = {"landmarks": "mixed"} if "landmarks" in arguments else {}
    return {**section, "init_args": {**arguments, **kinds, "batch_size": 1, "num_workers": 0}}


def data_of(path: Path) -> dict[str, Any]:
    """The data section of a paper's YAML, or of a shared one, with the files it names read in."""
    content = yaml.safe_load(path.read_text())
    section: Any = content.get("data", content)
    if isinstance(section, str):
        return data_of(path.parent / section)
    inner = section["init_args"].get("data")
    if isinstance(inner, str):
        section["init_args"]["data"] = data_of(path.parent / inner)
    found: dict[str, Any] = section
    return found


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "experiments" / "shared").glob("data_*.yaml")))
def test_every_shared_data_file_gives_batches(file: str, at_home: Path) -> None:
    section = data_of(ROOT / "experiments" / "shared" / file)
    if file == "data_mgcnet_list.yaml":
        write_mgcnet_list(at_home / "data" / "mgcnet")
    if file == "data_photos.yaml":
        section["init_args"]["root"] = "data/lfw"
    data = built(little(section))
    data.setup("fit")
    size = section["init_args"]["size"]
    batches = list(data.train_dataloader())
    assert batches
    for batch in (*batches, next(iter(data.val_dataloader()))):
        assert isinstance(batch, MultiViewBatch)
        assert batch.image.shape[1:] == (3, size, size) and batch.landmarks.shape[1:] == (68, 2)
    groups = sum(len(batch.views) for batch in batches)
    assert (groups > 0) == section["init_args"].get("views", file == "data_mgcnet_list.yaml")


@pytest.mark.parametrize("paper", PAPERS)
def test_every_papers_data_gives_batches(paper: str, at_home: Path) -> None:
    if paper not in ("mgcnet", "rogue") and not (at_home / "data" / paper).exists():
        (at_home / "data" / paper).symlink_to("celeba")
    section = data_of(ROOT / "experiments" / paper / "paper.yaml")
    data = built(little(section))
    data.setup("fit")
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        prepared = data.on_after_batch_transfer(batch, 0)
        assert isinstance(prepared, FaceBatch) and prepared.image.shape[1:] == (3, 224, 224)
        assert (paper == "rogue") == isinstance(prepared, CorruptedBatch)
        assert (paper == "specular") == (prepared.skin_probability is not None)


@pytest.mark.parametrize("name", sorted(TEST_ONLY))
def test_sets_for_testing_alone_test_but_do_not_train(name: str, house: Path) -> None:
    from datamodules.photo_folder import PhotoFolder

    data = PhotoFolder(str(house / "data" / name), size=SIZE, batch_size=2, num_workers=0)
    assert sum(len(batch) for batch in data.test_dataloader()) == PHOTOGRAPHS[name]
    with pytest.raises(UserError, match="holds no photographs for training"):
        data.train_dataloader()


def test_mgcnet_takes_a_step_on_real_data_sets(at_home: Path) -> None:
    """Groups of views and single photographs from four prepared data sets through the paper's own module."""
    mix = "--data=" + str(ROOT / "experiments" / "shared" / "data_mgcnet_mix.yaml")
    size = ["--data.init_args.size=64", "--data.init_args.num_workers=0"]
    config = ["--config", str(ROOT / "experiments" / "mgcnet" / "default.yaml")]
    landmarks = "--data.init_args.landmarks=mixed"
    assert main(["fit", *config, mix, *size, landmarks, "--trainer.fast_dev_run=true"]) == 0


def test_each_face_notes_which_landmarks_it_has(house: Path) -> None:
    """dlib's jaws and pt2d of 300W-LP mark the visible contour; pts_3d, AFLW2000-3D's and LS3D-W's are fixed points."""
    for name, contour in {"celeba": True, "lfw": True, "now": True, "aflw2000": False, "ls3d-w": False}.items():
        assert {face.contour for _, face in PhotoIndex.load(house / "data" / name).faces()} == {contour}, name
    for source, face in PhotoIndex.load(house / "data" / "300w-lp").faces():
        assert face.contour == ("_Flip" in source)


def test_two_kinds_of_landmarks_are_mixed_only_when_asked_for(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datamodules.photo_folder import PhotoFolder

    def faces(landmarks: Any, *names: str) -> list[bool]:
        data = PhotoFolder([f"data/{name}" for name in names], SIZE, 1, 0, augment=False, landmarks=landmarks)
        batches = list(data.predict_dataloader())
        return [batch.contour is not None and bool(batch.contour.all()) for batch in batches]

    with pytest.raises(UserError, match=r"data/300w-lp has 2d and 3d: .*`landmarks: mixed`"):
        faces(None, "300w-lp")
    with pytest.raises(UserError, match=r"data/ls3d-w has 3d; data/lfw has 2d: "):
        faces(None, "ls3d-w", "lfw")
    assert faces(None, "lfw") == [True] * 6 and faces("3d", "ls3d-w") == [False] * 5
    assert sorted(faces("mixed", "ls3d-w", "lfw")) == [False] * 5 + [True] * 6
    with pytest.warns(UserWarning, match=r"data/300w-lp: 1 of 7 faces are left out, which have no 3d landmarks"):
        assert faces("3d", "300w-lp") == [False] * 6
    with pytest.warns(UserWarning, match="6 of 7 faces are left out"):
        assert faces("2d", "300w-lp") == [True]
    for paper in ("mgcnet", "rogue"):
        section = data_of(ROOT / "experiments" / paper / "paper.yaml")
        stated = section["init_args"].get("data", section)
        assert stated["init_args"]["landmarks"] == "3d"
    config = ["--config", str(ROOT / "experiments" / "mgcnet" / "default.yaml"), "--trainer.fast_dev_run=true"]
    mix = "--data=" + str(ROOT / "experiments" / "shared" / "data_mgcnet_mix.yaml")
    assert main(["fit", *config, mix, "--data.init_args.size=64"]) == 2
    told = capsys.readouterr().err
    assert "data/multi-pie has 2d landmarks, not the 3d that are asked for" in told
    assert "--detector face-alignment" in told and "Traceback" not in told


def test_shards_keep_each_faces_kind(at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datamodules.sharding.sharded_faces import ShardedFaces

    out = tmp_path / "shards"
    assert main(["prepare", "shards", "data/300w-lp", "--out", str(out)]) == 0
    data = ShardedFaces(str(out), SIZE, 1, 0, augment=False, landmarks="mixed")
    batches = list(data.predict_dataloader())
    assert sorted(batch.contour is not None for batch in batches) == [False] * 6 + [True]
    for landmarks in (None, "3d"):
        with pytest.raises(UserError, match="landmarks: mixed"):
            ShardedFaces(str(out), SIZE, 1, 0, landmarks=landmarks).setup()
    stored = json.loads((out / "shards.json").read_text())
    for held in (None, 7, ["4d"]):  # none at all: shards of an older version
        stored["settings"]["landmarks"] = held
        (out / "shards.json").write_text(json.dumps(stored))
        with pytest.raises(UserError, match="does not say which landmarks it holds"):
            ShardedFaces(str(out), SIZE, 1, 0).setup()


def test_folders_of_an_older_version_are_read_or_named(at_home: Path, tmp_path: Path) -> None:
    """Their detector tells which landmarks they hold, and so does a data set whose owner gives one kind."""
    for name, contour in {"celeba": True, "ls3d-w": False, "300w-lp": None}.items():
        stored = json.loads((at_home / "data" / name / "index.json").read_text())
        for photo in stored["photos"].values():
            for face in photo["faces"]:
                del face["contour"]
        (tmp_path / "index.json").write_text(json.dumps(stored))
        if contour is None:
            with pytest.raises(UserError, match=r"older version.*prepare them again"):
                PhotoIndex.load(tmp_path)
        else:
            assert {face.contour for _, face in PhotoIndex.load(tmp_path).faces()} == {contour}
