"""Every shipped configuration trains: the default and the photographs in little, the paper's at full size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from experiments.__main__ import main
from experiments.training.checkpoint import load_module
from experiments.training.shipped_model import load_default_model
from lightning_modules.dense_face import DenseFace
from renderers.face_models.bfm2009 import load_bfm2009
from renderers.face_models.default.model import load_default
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.fake_bfm_h5 import fake_albedo, fake_bfm_h5
from tests.conf.fake_bfm_raw import write_fake_bfm_raw
from tests.conf.fake_mgcnet_list import write_list
from tests.conf.scenes import exact_batch
from tests.conf.write_hdf5 import write_hdf5

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "experiments").glob("**/*.yaml"))
LITTLE = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=1",
    "--data.init_args.batch_size=2",
    "--data.init_args.train_faces=4",
    "--data.init_args.val_faces=2",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs and data of these tests lie in a folder of their own; the face model's cache is the user's."""
    from renderers.io.cache import cache_dir

    model_files = [path for path in cache_dir().glob("*") if path.is_file()]
    monkeypatch.setenv("MONOFACE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for path in model_files:
        (tmp_path / "cache" / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    yield tmp_path


def run_folder(root: Path, paper: str = "mgcnet") -> Path:
    (folder,) = (root / "runs" / paper).iterdir()
    return folder


def test_no_configuration_is_forgotten() -> None:
    """Whoever adds a YAML adds it to a test here, or to a file that one of these includes."""
    names = {str(path.relative_to(ROOT / "experiments")) for path in CONFIGS}
    assert names == {
        "default_model/recipe.yaml",
        "finegrained/default.yaml",
        "finegrained/paper.yaml",
        "finegrained/sweep.yaml",
        "finegrained/table.yaml",
        "mgcnet/default.yaml",
        "mgcnet/paper.yaml",
        "mgcnet/sweep.yaml",
        "mgcnet/table.yaml",
        "rogue/default.yaml",
        "rogue/paper.yaml",
        "rogue/paper_balanced.yaml",
        "rogue/sweep.yaml",
        "rogue/table.yaml",
        "self_augmentation/default.yaml",
        "self_augmentation/paper.yaml",
        "self_augmentation/sweep.yaml",
        "self_augmentation/table.yaml",
        "shared/data_300w_lp.yaml",
        "shared/data_celeba.yaml",
        "shared/data_celebamask_hq.yaml",
        "shared/data_lfw.yaml",
        "shared/data_ls3d_w.yaml",
        "shared/data_mgcnet_list.yaml",
        "shared/data_mgcnet_mix.yaml",
        "shared/data_multi_pie.yaml",
        "shared/data_photos.yaml",
        "shared/data_rogue_mix.yaml",
        "shared/data_shards.yaml",
        "shared/face_model_bfm2009.yaml",
        "shared/face_model_bfm2009_trimmed.yaml",
        "shared/face_model_bfm2017.yaml",
        "shared/face_model_default.yaml",
        "shared/face_model_ict.yaml",
        "shared/face_model_prepared.yaml",
        "shared/trainer.yaml",
        "specular/default.yaml",
        "specular/paper.yaml",
        "specular/sweep.yaml",
        "specular/table.yaml",
    }


def test_default(elsewhere: Path) -> None:
    assert main(["fit", "--config", "experiments/mgcnet/default.yaml", *LITTLE]) == 0
    folder = run_folder(elsewhere)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in (
        "nme",
        "psnr",
        "vertex_rmse_mm",
        "shape_rmse_mm",
        "size_error_percent",
        "depth_error_mm",
        "yaw_error_deg",
        "identity_similarity",
    ):
        assert np.isfinite(metrics["initial"][f"val/{name}"]) and np.isfinite(metrics["final"][f"val/{name}"])
    assert metrics["final"]["val/loss"] != metrics["initial"]["val/loss"]
    with Image.open(folder / "preview.png") as picture:
        assert picture.width > 7 * 64
    checkpoint = folder / "checkpoints" / "last.ckpt"
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["validate", *arguments]) == 0
    assert main(["fit", *arguments, "--trainer.max_steps=3"]) == 0


@pytest.mark.slow
def test_rogue_default(elsewhere: Path) -> None:
    """The default run: the guidance alone, then with corrupted pictures; and the evaluation of what came out."""
    little = [word.replace("--data.init_args", "--data.init_args.data.init_args") for word in LITTLE]
    started = ["--model.init_args.robust_start=1"]
    assert main(["fit", "--config", "experiments/rogue/default.yaml", *little, *started]) == 0
    folder = run_folder(elsewhere, "rogue")
    final = json.loads((folder / "metrics.json").read_text())["final"]
    for name in ("nme", "psnr", "vertex_rmse_mm", "identity_similarity"):
        assert np.isfinite(final[f"val/{name}"])
    for kind in ("clean", "rational", "delusional", "noisy"):
        for name in (
            "vertex_rmse_mm",
            "shape_rmse_mm",
            "size_error_percent",
            "posed_rmse_mm",
            "texture_rmse",
            "cosine_distance",
        ):
            assert np.isfinite(final[f"val/{kind}/{name}"])
        assert kind == "clean" or np.isfinite(final[f"val/{kind}/posed_drift_mm"])
    with Image.open(folder / "preview.png") as picture:
        assert picture.width > 12 * 64
    checkpoint = folder / "checkpoints" / "last.ckpt"
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["validate", *arguments]) == 0
    assert main(["fit", *arguments, "--trainer.max_steps=3"]) == 0
    assert main(["evaluate", "--suite", "rogue", "--checkpoint", str(checkpoint), "--subjects", "2"]) == 0


@pytest.mark.slow
def test_rogue_validation_pictures_are_the_same_every_time(elsewhere: Path) -> None:
    little = [word.replace("--data.init_args", "--data.init_args.data.init_args") for word in LITTLE]
    metrics = []
    for _ in range(2):
        assert main(["fit", "--config", "experiments/rogue/default.yaml", *little, "--trainer.max_steps=1"]) == 0
        folder = run_folder(elsewhere, "rogue")
        metrics.append(json.loads((folder / "metrics.json").read_text()))
        folder.rename(elsewhere / f"kept{len(metrics)}")
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_specular_default(elsewhere: Path) -> None:
    little = [word.replace("--data.init_args", "--data.init_args.data.init_args") for word in LITTLE]
    started = ["--model.init_args.identity_start=0", "--model.init_args.mouth_start=0"]
    assert main(["fit", "--config", "experiments/specular/default.yaml", *little, *started]) == 0
    folder = run_folder(elsewhere, "specular")
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in (
        "nme", "psnr", "color_error", "point_to_plane_mm", "inner_mouth_error_mm", "specular_correlation",
        "light_direction_error_deg", "lid_correlation", "mean_face_shape_rmse_mm", "mouth", "uniform", "lids",
    ):  # fmt: skip
        assert np.isfinite(metrics["initial"][f"val/{name}"]) and np.isfinite(metrics["final"][f"val/{name}"]), name
    assert metrics["final"]["val/loss"] != metrics["initial"]["val/loss"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["validate", *arguments]) == 0
    assert main(["fit", *arguments, "--trainer.max_steps=3"]) == 0


def test_the_shipped_networks_recipe(elsewhere: Path) -> None:
    """Drawn heads to a checkpoint, and the checkpoint to the files that ship, which answer as it does."""
    little = [*LITTLE, "--data.init_args.picture_size=64", "--data.init_args.size=48"]
    small = ["--model.init_args.backbone.init_args.width=8", "--trainer.callbacks.init_args.every=1"]
    assert main(["fit", "--config", "experiments/default_model/recipe.yaml", *little, *small]) == 0
    folder = run_folder(elsewhere, "default_model")
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("nme", "psnr", "shape_rmse_mm", "yaw_error_deg", "dense_nme", "parsing_accuracy"):
        assert np.isfinite(metrics["initial"][f"val/{name}"]) and np.isfinite(metrics["final"][f"val/{name}"]), name
    checkpoint, out = folder / "checkpoints" / "last.ckpt", elsewhere / "shipped"
    out.mkdir()
    assert main(["export", "--default-model", str(checkpoint), "--out", str(out)]) == 0
    trained, shipped = load_module(checkpoint), load_default_model(load_default(), out)
    assert isinstance(trained, DenseFace) and shipped is not None
    picture = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(
        shipped.predict(picture).points, trained.network.predict(picture).points, atol=0.2, rtol=0
    )


@pytest.mark.slow
def test_finegrained_default(elsewhere: Path) -> None:
    """Both stages in one run, the record of both, and a row of table 5 that goes on from the coarse network alone."""
    staged = ["--model.init_args.fine_start=1", "--model.init_args.identity_start=0"]
    little = [*LITTLE, "--data.init_args.size=48", "--model.init_args.chart_size=32"]
    assert main(["fit", "--config", "experiments/finegrained/default.yaml", *little, *staged]) == 0
    folder = run_folder(elsewhere, "finegrained")
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("psnr", "ssim", "rmse", "normal_error_deg"):
        for stage in ("coarse", "fine", "held_out/coarse", "held_out/fine"):
            assert np.isfinite(metrics["initial"][f"val/{stage}_{name}"]), name
            assert np.isfinite(metrics["final"][f"val/{stage}_{name}"]), name
    assert metrics["final"]["val/fine_psnr"] != metrics["final"]["val/coarse_psnr"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["validate", *arguments]) == 0
    assert main(["fit", *arguments, "--trainer.max_steps=3"]) == 0
    rows = yaml.safe_load((ROOT / "experiments/finegrained/table.yaml").read_text())["rows"]
    none = next(row["overrides"] for row in rows if row["name"].startswith("none"))
    start = [f"--model.init_args.init_weights={checkpoint}", "--run_id=row"]
    assert main(["fit", "--config", "experiments/finegrained/default.yaml", *little, *start, *none]) == 0
    row = json.loads((elsewhere / "runs" / "finegrained" / "row" / "metrics.json").read_text())
    assert row["final"] == row["initial"]
    assert row["final"]["val/fine_psnr"] > row["final"]["val/coarse_psnr"], "its light is fitted, as every row's is"


@pytest.mark.slow
def test_self_augmentation_default(elsewhere: Path) -> None:
    """The coarse stage, the fine one alone, and with what is fed back; then a table's row on its coarse model."""
    stages = ["--model.init_args.coarse_steps=1", "--model.init_args.augmentation_start=1", "--trainer.max_steps=4"]
    command = ["fit", "--config", "experiments/self_augmentation/default.yaml", *LITTLE]
    assert main([*command, *stages]) == 0
    folder = run_folder(elsewhere, "self_augmentation")
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in (
        "nme", "psnr", "vertex_rmse_mm", "identity_similarity", "fine_psnr", "coarse_psnr", "fine_ssim",
        "fine_similarity_dlib_150", "occluded/fine_psnr", "occluded/coarse_ssim", "occluded/fine_hidden_color_rmse",
    ):  # fmt: skip
        assert np.isfinite(metrics["initial"][f"val/{name}"]) and np.isfinite(metrics["final"][f"val/{name}"]), name
    assert metrics["initial"]["val/fine_psnr"] == metrics["initial"]["val/coarse_psnr"]
    assert metrics["final"]["val/fine_psnr"] != metrics["final"]["val/coarse_psnr"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    arguments = ["--config", str(folder / "config.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["validate", *arguments]) == 0
    assert main(["fit", *arguments, "--trainer.max_steps=5"]) == 0
    given = [f"--model.init_args.init_weights={checkpoint}", "--model.init_args.freeze_coarse=false", "--run_id=row"]
    assert main([*command, *given]) == 0
    row = json.loads((elsewhere / "runs" / "self_augmentation" / "row" / "metrics.json").read_text())
    assert row["initial"]["val/coarse_psnr"] == pytest.approx(metrics["final"]["val/coarse_psnr"], rel=1e-3)


def test_self_augmentation_rows_are_the_five_of_the_paper() -> None:
    rows = yaml.safe_load((ROOT / "experiments/self_augmentation/table.yaml").read_text())["rows"]
    assert [row["paper"]["PSNR"] for row in rows] == [21.19, 22.78, 22.91, 23.27, 20.14]


def prepare_two_photographs(out: str) -> None:
    from skimage.data import astronaut

    Path("photos").mkdir()
    for index, turned in enumerate((astronaut(), astronaut()[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(turned)).save(Path("photos") / f"{index}.jpg")
    assert main(["prepare", "photos", "photos", "--out", out]) == 0


def test_photographs(elsewhere: Path) -> None:
    prepare_two_photographs("data/photos")
    command = ["fit", "--config", "experiments/mgcnet/default.yaml", "--data", "experiments/shared/data_photos.yaml"]
    little = ["--data.init_args.num_workers=0", "--trainer.max_steps=40", "--trainer.val_check_interval=40"]
    assert main([*command, *little]) == 0
    metrics = json.loads((run_folder(elsewhere) / "metrics.json").read_text())
    assert metrics["final"]["val/pixel"] == 0
    assert metrics["final"]["val/loss"] < 0.9 * metrics["initial"]["val/loss"]
    assert "val/vertex_rmse_mm" not in metrics["final"]  # nobody knows the truth of a photograph


@pytest.mark.slow
def test_paper_at_full_size(elsewhere: Path) -> None:
    """ResNet-50, 224 px, 35,709 vertices: a real step on files of random numbers in the right layouts."""
    face_model = load_bfm2009(write_fake_bfm(elsewhere / "data.mat", full_size=True))
    assert face_model.vertex_count == 35_709
    (elsewhere / "data").mkdir()
    (elsewhere / "data.mat").rename(elsewhere / "data" / "BFM_model_front.mat")
    batch, _ = exact_batch(face_model, faces=3, size=224)
    write_list(elsewhere / "data" / "mgcnet", batch, flags="012")
    little = ["--data.init_args.batch_size=2", "--data.init_args.val_count=1", "--data.init_args.num_workers=0"]
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=1"]
    own_list = ["--data", "experiments/shared/data_mgcnet_list.yaml"]
    command = ["fit", "--config", "experiments/mgcnet/paper.yaml", *own_list, *little, *one_process]
    offline = ["--model.init_args.backbone.init_args.pretrained=false", "--trainer.val_check_interval=1"]
    assert main([*command, *offline]) == 0
    metrics = json.loads((run_folder(elsewhere) / "metrics.json").read_text())
    assert metrics["final"]["val/landmark"] != metrics["initial"]["val/landmark"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "paper_balanced"])
def test_rogue_paper_at_full_size(elsewhere: Path, name: str) -> None:
    """ResNet-50, 224 px, 35,709 vertices, on photographs: a real step of the network and of both discriminators."""
    (elsewhere / "data").mkdir()
    write_fake_bfm(elsewhere / "data" / "BFM_model_front.mat", full_size=True)
    prepare_two_photographs("data/rogue")
    little = [
        "--data.init_args.data.init_args.root=data/rogue", "--data.init_args.data.init_args.landmarks=2d",
        "--data.init_args.data.init_args.batch_size=1", "--data.init_args.data.init_args.num_workers=0",
    ]  # fmt: skip
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=1"]
    offline = ["--model.init_args.backbone.init_args.pretrained=false", "--trainer.val_check_interval=1"]
    command = ["fit", "--config", f"experiments/rogue/{name}.yaml", *little, *one_process, *offline]
    assert main(command) == 0
    metrics = json.loads((run_folder(elsewhere, "rogue") / "metrics.json").read_text())
    assert metrics["final"]["val/landmark"] != metrics["initial"]["val/landmark"]
    assert np.isfinite(metrics["final"]["val/rational/nme"])


@pytest.mark.slow
def test_specular_paper_at_full_size(elsewhere: Path) -> None:
    """ResNet-50, 224 px, a model in the layouts of BFM 2017 and AlbedoMM, on photographs: a real step."""
    fake = fake_bfm_h5(subdivide=1)
    count = fake.arrays["shape/representer/points"].shape[1]
    (elsewhere / "data").mkdir()
    write_hdf5(elsewhere / "data" / "model2017-1_face12_nomouth.h5", fake.arrays)
    write_hdf5(elsewhere / "data" / "albedoModel2020_face12_albedoPart.h5", fake_albedo(count))
    prepare_two_photographs("data/specular")
    little = ["--data.init_args.data.init_args.batch_size=1", "--data.init_args.data.init_args.num_workers=0"]
    little += ["--data.init_args.data.init_args.landmarks=2d"]
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=1"]
    offline = ["--model.init_args.backbone.init_args.pretrained=false", "--trainer.val_check_interval=1"]
    command = ["fit", "--config", "experiments/specular/paper.yaml", *little, *one_process, *offline]
    assert main(command) == 0
    metrics = json.loads((run_folder(elsewhere, "specular") / "metrics.json").read_text())
    assert metrics["final"]["val/landmark"] != metrics["initial"]["val/landmark"]
    assert "val/specular_correlation" not in metrics["final"]  # nobody knows the truth of a photograph


@pytest.mark.slow
def test_self_augmentation_paper_at_full_size(elsewhere: Path) -> None:
    """ResNet-50, 224 px, 35,709 vertices, on photographs: a real step of equation (5) with both views fed back."""
    (elsewhere / "data").mkdir()
    write_fake_bfm(elsewhere / "data" / "BFM_model_front.mat", full_size=True)
    prepare_two_photographs("data/self_augmentation")
    little = ["--data.init_args.batch_size=1", "--data.init_args.num_workers=0", "--data.init_args.landmarks=2d"]
    little += ["--model.init_args.coarse_steps=0"]
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=1"]
    offline = ["--model.init_args.backbone.init_args.pretrained=false", "--trainer.val_check_interval=1"]
    command = ["fit", "--config", "experiments/self_augmentation/paper.yaml", *little, *one_process, *offline]
    assert main(command) == 0
    metrics = json.loads((run_folder(elsewhere, "self_augmentation") / "metrics.json").read_text())
    assert metrics["final"]["val/photometric"] != metrics["initial"]["val/photometric"]
    assert np.isfinite(metrics["final"]["val/occluded/fine_psnr"])
    assert "val/occluded/fine_hidden_color_rmse" not in metrics["final"]  # nobody knows the truth of a photograph


def test_table_rows_are_the_seven_of_the_paper() -> None:
    rows = yaml.safe_load((ROOT / "experiments/mgcnet/table.yaml").read_text())["rows"]
    assert len(rows) == 7
    assert [row["paper"]["MICC cooperative"] for row in rows] == [1.83, 1.80, 1.77, 1.79, 1.76, 1.80, 1.73]


@pytest.mark.slow
def test_finegrained_paper_at_full_size(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-16, 224 px, 222 numbers, the orthographic camera, on photographs: a real step of each stage."""
    write_fake_bfm_raw(elsewhere / "data" / "BFM2009")
    # VGG-Face's 580 MB are read in tests of their own.
    (elsewhere / "data" / "vgg_face_dag.pth").touch()
    monkeypatch.setattr("lightning_modules.components.pretrained.load_vgg_face", lambda network, path: None)
    prepare_two_photographs("data/finegrained")
    little = ["--data.init_args.batch_size=1", "--data.init_args.num_workers=0", "--data.init_args.landmarks=2d"]
    little += ["--model.init_args.fine_start=1"]
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto", "--trainer.max_steps=2"]
    each_step = ["--trainer.val_check_interval=1"]
    assert main(["fit", "--config", "experiments/finegrained/paper.yaml", *little, *one_process, *each_step]) == 0
    checkpoint = torch.load(run_folder(elsewhere, "finegrained") / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(checkpoint["state_dict"]["regressor.head.bias"]) == 222
    metrics = json.loads((run_folder(elsewhere, "finegrained") / "metrics.json").read_text())
    for name in ("landmark", "fine_photometric"):
        assert metrics["final"][f"val/{name}"] != metrics["initial"][f"val/{name}"]
    assert "val/fine_normal_error_deg" not in metrics["final"]  # nobody knows the truth of a photograph
