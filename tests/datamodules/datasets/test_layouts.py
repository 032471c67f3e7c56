"""Every data set's reader on a tiny copy in its owner's layout, and on folders that are laid out otherwise."""

from __future__ import annotations

import pickle
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from datamodules.datasets import (
    aflw2000,
    bu3dfe,
    celeba,
    celebamask_hq,
    facescape,
    frgc,
    lfw,
    ls3dw,
    micc,
    multi_pie,
    now,
    w300lp,
)
from datamodules.datasets.layouts import LAYOUTS, load_layout
from datamodules.datasets.scans import read_scan, read_scan_landmarks
from renderers.io.errors import UserError
from tests.conf.fake_datasets import BND_VERTICES, SIDE, WRITERS, fake_face, head_scan, save_photo, save_text


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny copy of every data set; the tests that change one copy it first."""
    root = tmp_path_factory.mktemp("datasets")
    return {name: write(root / name) for name, write in WRITERS.items()}


def splits(records: list) -> Counter:
    return Counter(record.label.split for record in records)


@pytest.mark.parametrize("name", LAYOUTS)
def test_records_name_photographs_that_are_there_once(name: str, copies: dict[str, Path]) -> None:
    layout = load_layout(name)
    records = layout.records(copies[name])
    assert layout.name == name and records
    names = [record.name for record in records]
    assert len(set(names)) == len(names)
    assert all((copies[name] / record.name).is_file() and "\\" not in record.name for record in records)
    assert pickle.loads(pickle.dumps(layout)) == layout  # worker processes get it so
    if layout.gives_landmarks:
        for record in records:
            assert layout.annotate(copies[name], record.name).landmarks.shape == (68, 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_folder_is_told_what_was_expected_and_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"not laid out as .*: expected .*; found holiday/, notes\.txt"):
        load_layout(name).records(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_layout(name).records(tmp_path / "missing")


def test_celeba_has_the_official_split_and_people(copies: dict[str, Path], tmp_path: Path) -> None:
    records = celeba.read_records(copies["celeba"])
    assert splits(records) == {"train": 3, "val": 1, "test": 2}
    assert [record.label.identity for record in records] == ["7", "7", "8", "9", "5", "5"]
    other = tmp_path / "other"  # as the owner's archives unpack, and without the list of people
    shutil.copytree(copies["celeba"] / "img_align_celeba", other / "Img" / "img_align_celeba")
    save_text(other / "Eval" / "list_eval_partition.txt", "000001.jpg 2")
    (record,) = celeba.read_records(other)
    assert record.name == "Img/img_align_celeba/000001.jpg"
    assert (record.label.split, record.label.identity) == ("test", "000001.jpg")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("../../secret.jpg 0", "leads out of"),
        ("/etc/passwd 0", "leads out of"),
        ("a\\..\\b.jpg 0", "leads out of"),
        ("C:/x.jpg 0", "leads out of"),
        ("000001.jpg 3", "split '3'"),
        ("000001.jpg", "expected 2 words"),
    ],
)
def test_celeba_list_with_a_wrong_row_is_named(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    save_text(tmp_path / "list_eval_partition.txt", "000001.jpg 0", row)
    with pytest.raises(UserError, match=rf"list_eval_partition\.txt, line 2: .*{re.escape(told)}"):
        celeba.read_records(tmp_path)


def test_celebamask_skin_is_what_no_other_part_hides(copies: dict[str, Path]) -> None:
    root = copies["celebamask-hq"]
    assert [record.label.split for record in celebamask_hq.read_records(root)] == ["train", "val", "test"]
    skin = celebamask_hq.annotate(root, "CelebA-HQ-img/0.jpg").skin
    assert skin is not None and skin.shape == (SIDE // 2, SIDE // 2)
    expected = np.zeros_like(skin)
    expected[SIDE // 8 :, : SIDE // 4] = 1
    np.testing.assert_array_equal(skin, expected)
    assert celebamask_hq.annotate(root, "CelebA-HQ-img/1.jpg").skin.mean() == 0.5


def test_celebamask_masks_of_other_sizes_are_named(copies: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(copies["celebamask-hq"], tmp_path / "copy")
    Image.new("L", (40, 40)).save(root / "CelebAMask-HQ-mask-anno" / "0" / "00000_nose.png")
    with pytest.raises(UserError, match=r"00000_nose\.png: 40 x 40 pixels"):
        celebamask_hq.annotate(root, "CelebA-HQ-img/0.jpg")
    with pytest.raises(UserError, match=r"00009_skin\.png: no such mask"):
        celebamask_hq.annotate(root, "CelebA-HQ-img/9.jpg")


def test_w300lp_views_are_groups_and_mirror_images_are_the_same_person(copies: dict[str, Path]) -> None:
    root = copies["300w-lp"]
    records = w300lp.read_records(root)
    assert splits(records) == {"train": 7}
    assert Counter(record.label.group for record in records) == {
        "AFW/AFW_1_1": 3,
        "LFPW/LFPW_image_7": 3,
        "AFW_Flip/AFW_1_1": 1,
    }
    assert {record.label.identity for record in records} == {"AFW/AFW_1_1", "LFPW/LFPW_image_7"}
    annotation = w300lp.annotate(root, "300W_LP/AFW/AFW_1_1_2.jpg")
    np.testing.assert_allclose(annotation.landmarks, fake_face().landmarks, atol=1e-9)  # pts_3d, counted from 0
    assert annotation.yaw == pytest.approx(40)
    flipped = w300lp.annotate(root, "300W_LP/AFW_Flip/AFW_1_1_0.jpg").landmarks  # its pt2d, having no file of points
    np.testing.assert_allclose(SIDE - flipped[:17][::-1, 0], fake_face().landmarks[:17, 0], atol=1e-9)


def test_aflw2000_annotation(copies: dict[str, Path]) -> None:
    annotation = aflw2000.read_annotation(copies["aflw2000"] / "AFLW2000" / "image00004.mat")
    np.testing.assert_allclose(annotation.landmarks[:, :2], fake_face().landmarks, atol=1e-9)
    np.testing.assert_array_equal(annotation.landmarks[:, 2], np.arange(68))
    np.testing.assert_allclose(annotation.roi_box, [10.5, 11.5, 100.5, 111.5])
    np.testing.assert_allclose(annotation.pose, np.degrees([0.1, np.radians(-75), -0.05]))
    assert splits(aflw2000.read_records(copies["aflw2000"])) == {"test": 3}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"pt3d_68": None}, "no pt3d_68 in it"),
        ({"pt3d_68": np.zeros((68, 3))}, r"shape \(68, 3\), expected \(3, 68\)"),
        ({"pt3d_68": "text"}, "pt3d_68 holds char"),
        ({"pt3d_68": np.full((3, 68), np.nan)}, "not finite"),
        ({"roi": np.zeros((1, 4), complex)}, "roi"),
        ({"Pose_Para": np.array([[1, {"a": 1}]], object)}, "Pose_Para holds cell"),
    ],
)
def test_aflw2000_annotation_that_is_wrong_is_named(tmp_path: Path, changed: dict, told: str) -> None:
    arrays = {"pt3d_68": np.zeros((3, 68)), "roi": np.zeros((1, 4)), "Pose_Para": np.zeros((1, 7))} | changed
    path = tmp_path / "image.mat"
    scipy.io.savemat(path, {name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(UserError, match=told):
        aflw2000.read_annotation(path)


def test_lfw_lists_part_the_people(copies: dict[str, Path], tmp_path: Path) -> None:
    labels = {record.label.identity: record.label.split for record in lfw.read_records(copies["lfw"])}
    assert labels == {"Ada_Lovelace": "train", "Ben_Okri": "test", "Cleo_Laine": "test"}
    root = shutil.copytree(copies["lfw"], tmp_path / "copy")
    for name in lfw.DEVELOPMENT:
        (root / name).unlink()
    assert splits(lfw.read_records(root)) == {"test": 6}
    save_text(root / "peopleDevTrain.txt", "1", "Ada Lovelace 2")
    with pytest.raises(UserError, match=r"peopleDevTrain\.txt, line 2"):
        lfw.read_records(root)


def test_ls3dw_reads_both_kinds_of_points(copies: dict[str, Path], tmp_path: Path) -> None:
    root = copies["ls3d-w"]
    records = ls3dw.read_records(root)
    assert splits(records) == {"train": 4, "test": 1}
    assert len({record.label.identity for record in records}) == 4  # two frames of one video
    for name in ("Menpo-3D/1.jpg", "300VW-3D/Trainset/001/0001.png"):
        np.testing.assert_allclose(ls3dw.annotate(root, name).landmarks, fake_face().landmarks, atol=1e-4)
    scipy.io.savemat(tmp_path / "a.mat", {"one": np.zeros((68, 2)), "two": np.zeros((2, 68))})
    with pytest.raises(UserError, match=r"a\.mat: 2 arrays of 68 points \(one, two\)"):
        ls3dw.annotate(tmp_path, "a.jpg")


def test_multi_pie_groups_what_was_taken_at_once(copies: dict[str, Path]) -> None:
    records = multi_pie.read_records(copies["multi-pie"])
    assert Counter(record.label.group for record in records) == {"001_01_01_06": 4, "002_01_01_06": 4}
    assert {record.label.yaw for record in records} == {-15.0, 0.0, 15.0, 30.0}


def test_scan_data_sets_give_subjects(copies: dict[str, Path]) -> None:
    found = micc.read_subjects(copies["micc"])
    assert [(s.name, s.group, len(s.images)) for s in found] == [
        ("subject_01", "cooperative", 2), ("subject_01", "indoor", 2), ("subject_01", "outdoor", 2),
        ("subject_02", "cooperative", 2),
    ]  # fmt: skip
    faces = facescape.read_subjects(copies["facescape"])
    assert [(s.name, s.group) for s in faces] == [("122", "16_grin"), ("122", "1_neutral")]
    assert [path.name for path in faces[0].images] == ["0.jpg", "2.jpg"]  # the owner calls 1 invalid
    happy, neutral = bu3dfe.read_subjects(copies["bu3dfe"])
    assert (happy.group, neutral.group, neutral.name) == ("HA04", "NE00", "F0001")
    ranges = frgc.read_subjects(copies["frgc"])
    assert [(s.name, s.group, s.images[0].name) for s in ranges] == [
        ("02463", "Fall2003range", "02463d453.ppm"),
        ("02463", "Fall2003range", "02463d547.jpg"),
    ]
    faces_now = now.read_subjects(copies["now"])
    assert [(s.name, s.group) for s in faces_now] == [
        ("P1", "multiview_neutral"),
        ("P1", "selfie"),
        ("P2", "multiview_neutral"),
    ]
    for subject in (*found, *faces, *faces_now, happy):
        assert subject.scan is not None
        scan = read_scan(subject.scan)
        np.testing.assert_allclose(scan.vertices, head_scan().vertices, atol=1e-6)
        np.testing.assert_array_equal(scan.faces, head_scan().faces)
    for subject, vertices in ((faces_now[0], np.arange(7)), (happy, BND_VERTICES)):
        assert subject.scan_landmarks is not None
        points = read_scan_landmarks(subject.scan_landmarks)
        np.testing.assert_allclose(points, head_scan().vertices[vertices], atol=1e-6)


def test_micc_with_videos_alone_says_to_extract_frames(tmp_path: Path, copies: dict[str, Path]) -> None:
    shutil.copytree(copies["micc"] / "subject_01" / "Model", tmp_path / "subject_01" / "Model")
    (tmp_path / "subject_01" / "Videos").mkdir()
    (tmp_path / "subject_01" / "Videos" / "clip.mov").write_bytes(b"x")
    with pytest.raises(UserError, match=r"extract frames from the videos first, such as .*clip\.mov"):
        micc.read_subjects(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not a JSON file"),
        ("[1]", "expected an object"),
        ('{"0_valid": 1}', "0_valid"),
        ('{"-1_valid": true}', "-1"),
    ],
)
def test_facescape_settings_that_are_wrong_are_named(tmp_path: Path, content: str, told: str) -> None:
    save_photo(tmp_path / "1" / "1_neutral" / "0.jpg")
    (tmp_path / "1" / "1_neutral" / "params.json").write_text(content)
    with pytest.raises(UserError, match=rf"params\.json: .*{told}"):
        facescape.read_subjects(tmp_path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("P1/selfie", "expected SUBJECT"),
        ("P1/party/a.jpg", "expected SUBJECT"),
        ("../../../P1/selfie/a.jpg", "leads out"),
    ],
)
def test_now_list_with_a_wrong_row_is_named(copies: dict[str, Path], tmp_path: Path, row: str, told: str) -> None:
    root = shutil.copytree(copies["now"], tmp_path / "copy")
    save_text(root / "imagepathsvalidation.txt", row)
    with pytest.raises(UserError, match=rf"imagepathsvalidation\.txt, line 1: .*{told}"):
        now.read_subjects(root)


def test_now_may_be_unpacked_into_the_photographs_archive(copies: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(copies["now"], tmp_path / "copy")
    for name in ("imagepathsvalidation.txt", "scans", "scans_lmks_onlypp"):
        (root / name).rename(root / "NoW_Dataset" / "final_release_version" / name)
    moved, found = now.read_subjects(root), now.read_subjects(copies["now"])
    assert [(s.name, s.group, len(s.images)) for s in moved] == [(s.name, s.group, len(s.images)) for s in found]
    assert all(s.scan is not None and s.scan.is_file() for s in moved)


def test_now_person_without_a_scan_is_named(copies: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(copies["now"], tmp_path / "copy")
    (root / "scans" / "P2" / "scan.obj").unlink()
    with pytest.raises(UserError, match=r"P2: no \*\.obj"):
        now.read_subjects(root)
