"""`evaluate`: the truth scores nothing, the errors are those of a hand calculation, the files say what was found."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from datamodules.corrupted_faces import EVALUATION
from datamodules.photo_folder import PhotoFolder
from datamodules.preparation.prepared_folder import PhotoIndex
from datamodules.synthesis.scenes import SceneSettings
from datamodules.synthetic import SyntheticMultiView
from experiments.commands.evaluate import command, fitted_truth, rogue
from experiments.commands.evaluate.results import Evaluation, Request, write_results
from experiments.commands.evaluate.subjects import find_subjects, scene_settings, training_data
from experiments.fitting.photometric_fitting import FitSettings, fit
from experiments.training.checkpoint import CONFIG_KEY
from lightning_modules.base import FaceModule
from lightning_modules.components.backbones import ResNet
from lightning_modules.mgcnet import MGCNet
from losses.metrics.similarity import umeyama
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.io.errors import UserError
from tests.conf.fake_bfm import write_fake_bfm
from tests.conf.parts import SmallEncoder
from tests.conf.scenes import exact_batch, small_face_model
from tests.conf.tiny import TinyModule
from tests.datamodules.test_photo_folder import prepared_folder
from tests.experiments.test_main import complaint

SIZE = 32
SETS = ["clean", "rational", "delusional", "noisy"]
METRICS = ["vertex_rmse_mm", "shape_rmse_mm", "size_error_percent", "posed_rmse_mm", "texture_rmse", "cosine_distance"]
QUICK = FitSettings(photometric_iterations=2, landmark_rounds=2, photometric_size=32)
CLOSE = {"rtol": 1e-2, "atol": 1e-2}  # of two fits, which carry the last digit of a sum far


class Oracle(FaceModule):
    """Knows what it will be asked: one answer a picture, in the order of the batches and of the sets in each."""

    def __init__(self, face_model: MorphableModel, answers: list[Tensor]) -> None:
        super().__init__(face_model, ResNet(18), SmallEncoder(), SIZE, torch.optim.Adam)
        self.answers: Iterator[Tensor] = iter([answer for answer in answers for _ in SETS])

    def forward(self, image: Tensor) -> Coefficients:
        return self.face_model.layout().split(next(self.answers).to(image.device))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MONOFACE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def network() -> FaceModule:
    """An untrained one whose last layer is not zero, so that it answers differently to different pictures."""
    torch.manual_seed(0)
    module = MGCNet(small_face_model(), ResNet(18), SmallEncoder(), SIZE)
    for parameter in module.regressor.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, network: FaceModule) -> Path:
    """A checkpoint in a run's folder."""
    folder = tmp_path_factory.mktemp("run")
    model_file = write_fake_bfm(folder / "model.mat")
    path = folder / "checkpoints/last.ckpt"
    path.parent.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"settings": {"max_yaw": 20.0}}}}))
    section = {
        "class_path": "lightning_modules.mgcnet.MGCNet",
        "init_args": {
            "face_model": {
                "class_path": "renderers.face_models.load.load_face_model",
                "init_args": {"spec": str(model_file)},
            },
            "backbone": {"class_path": "lightning_modules.components.backbones.ResNet", "init_args": {"depth": 18}},
            "identity_encoder": {"class_path": "tests.conf.parts.SmallEncoder"},
            "image_size": SIZE,
        },
    }
    contents = {"state_dict": network.state_dict(), CONFIG_KEY: yaml.safe_dump(section)}
    network.on_save_checkpoint(contents)
    torch.save(contents, path)
    return path


def trusting(checkpoint: Path) -> list[str]:
    """The encoder is these tests' own, and the face model does not lie in data/."""
    return ["--trust-classes", "tests.conf", "--trust-folder", str(checkpoint.parents[1])]


def ask(subjects: int = 3, **changes: Any) -> Request:
    return replace(Request(Path("alone.ckpt"), None, subjects, seed=0, batch_size=2), **changes)


def evaluate(module: FaceModule, request: Request) -> Evaluation:
    return rogue.evaluate(module, request, lambda line: None)


def true_vectors(request: Request) -> list[Tensor]:
    """The truth of the test faces by batch."""
    settings = SceneSettings(views=1)
    data = SyntheticMultiView(
        small_face_model(), SIZE, request.batch_size, test_faces=request.subjects, seed=request.seed, settings=settings
    )
    return [batch.truth.coefficients for batch in data.test_dataloader() if batch.truth is not None]


def test_who_knows_the_truth_makes_no_error() -> None:
    request = ask()
    found = evaluate(Oracle(small_face_model(), true_vectors(request)), request)
    assert (found.truth, found.subjects, list(found.sets)) == ("exact", 3, SETS)
    for name, metrics in found.sets.items():
        for metric in (*METRICS[:3], *(["posed_drift_mm"] if name != "clean" else [])):
            np.testing.assert_allclose(metrics[metric], np.zeros(3), atol=1e-3)
        # Its faces are one and the same, and are compared with the clean photograph, whatever the network was shown.
        assert metrics["cosine_distance"] == found.sets["clean"]["cosine_distance"]


def test_errors_are_those_of_a_hand_calculation(network: FaceModule) -> None:
    model = small_face_model()
    clean, true = exact_batch(model, faces=1, size=SIZE, views=2)
    generator = torch.Generator().manual_seed(1)
    wrong = Coefficients.from_named(
        {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in true.named().items()}
    )
    rendering = network.renderer(wrong, clean.intrinsics)
    errors = rogue.face_errors(network, clean, rendering, true)
    assert list(errors) == METRICS
    for face in range(2):
        shapes, posed, colors = [], [], []
        for coefficients in (wrong, true):
            values = {name: value[face].double().numpy() for name, value in coefficients.named().items()}
            shape = model.mean_shape.double().numpy().copy()
            shape += model.identity_basis.double().numpy() @ values["identity"]
            shape += model.expression_basis.double().numpy() @ values["expression"]
            shapes.append(shape)
            # R = Rz Ry Rx: extrinsic rotations about x, then y, then z.
            posed.append(Rotation.from_euler("xyz", values["angles"]).apply(shape) + values["translation"])
            colors.append(model.mean_albedo.double().numpy() + model.albedo_basis.double().numpy() @ values["albedo"])
        centred = [vertices - vertices.mean(axis=0) for vertices in posed]
        expected = {
            "vertex_rmse_mm": 100 * np.sqrt(((shapes[0] - shapes[1]) ** 2).sum(axis=1).mean()),
            "shape_rmse_mm": 100 * np.sqrt(((umeyama(*shapes).apply(shapes[0]) - shapes[1]) ** 2).sum(axis=1).mean()),
            "size_error_percent": 100
            * abs(np.divide(*(np.std(shape, axis=0) @ np.std(shape, axis=0) for shape in shapes)) ** 0.5 - 1),
            "posed_rmse_mm": 100 * np.sqrt(((centred[0] - centred[1]) ** 2).sum(axis=1).mean()),
            "texture_rmse": np.sqrt(((colors[0] - colors[1]) ** 2).mean()),
        }
        a = network.identity_encoder(clean.image, clean.landmarks)[face].double().numpy()
        b = network.identity_encoder(rendering.image.clamp(0, 1), rendering.landmarks)[face].detach().double().numpy()
        expected["cosine_distance"] = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for metric, value in expected.items():
            assert value > 1e-3
            assert float(errors[metric][face]) == pytest.approx(value, rel=1e-3), metric


def test_a_seed_says_everything_and_the_batch_size_nothing(network: FaceModule) -> None:
    first = evaluate(network, ask())
    assert evaluate(network, ask()).sets == first.sets
    whole = evaluate(network, ask(batch_size=3))
    other = evaluate(network, ask(seed=1))
    assert list(first.panels) == [f"{name}{suffix}" for name in SETS for suffix in ("", ": overlay", ": shape")]
    for name in SETS:
        torch.testing.assert_close(whole.panels[name], first.panels[name])
        for metric in METRICS:
            np.testing.assert_allclose(whole.sets[name][metric], first.sets[name][metric], rtol=2e-2, atol=1e-3)
            assert other.sets[name][metric] != first.sets[name][metric]


def test_more_subjects_and_other_corruptions_leave_a_picture_as_it_was() -> None:
    clean, _ = exact_batch(small_face_model(), faces=3, size=SIZE, views=1)
    modules = {name: make() for name, make in EVALUATION.items()}
    together = rogue.corrupted_pictures(clean, modules, seed=4)
    assert list(together) == SETS[1:]
    for pictures in together.values():
        assert pictures.shape == clean.image.shape
        assert ((pictures - clean.image).abs().amax(dim=(1, 2, 3)) > 0.02).all()
    alone = replace(
        clean,
        image=clean.image[2:],
        landmarks=clean.landmarks[2:],
        skin=clean.skin[2:],
        intrinsics=clean.intrinsics[2:],
    )
    torch.testing.assert_close(
        rogue.corrupted_pictures(alone, modules, seed=4, first=2)["noisy"], together["noisy"][2:], rtol=0, atol=0
    )
    assert not torch.equal(rogue.corrupted_pictures(clean, modules, seed=5)["noisy"], together["noisy"])


def test_subjects_are_no_training_faces(network: FaceModule) -> None:
    model, request = small_face_model(), ask(subjects=4)
    data = SyntheticMultiView(model, SIZE, train_faces=4, val_faces=4, settings=SceneSettings(views=1))
    seen = torch.cat([b.truth.coefficients for b in (*data.train_dataloader(), *data.val_dataloader()) if b.truth])
    tested = torch.cat([vector for _, vector in find_subjects(model, SIZE, request, print).batches])
    assert tested.shape == (4, model.layout().length)
    assert torch.cdist(tested[:, :80], seen[:, :80]).min() > 1


def test_drift_is_measured_from_the_answer_to_the_clean_picture() -> None:
    """Whoever is wrong in the same way has not drifted; whoever is right behind an occlusion alone has."""
    request, model = ask(2), small_face_model()
    true, layout = true_vectors(request)[0], model.layout()
    wider = layout.split(true)
    wider = replace(wider, identity=wider.identity + 1)
    moved = replace(wider, translation=wider.translation + torch.tensor([0.1, 0.0, 0.0]))
    oracle = Oracle(model, [])
    oracle.answers = iter([layout.join(wider), layout.join(wider), true, layout.join(moved)])
    sets = evaluate(oracle, request).sets
    assert "posed_drift_mm" not in sets["clean"]
    wrong = sets["clean"]["posed_rmse_mm"]
    assert min(wrong) > 0.1
    for name, drift, error in (("rational", 0, wrong), ("delusional", wrong, 0), ("noisy", 0, wrong)):
        np.testing.assert_allclose(sets[name]["posed_drift_mm"], drift, atol=1e-3)
        np.testing.assert_allclose(sets[name]["posed_rmse_mm"], error, atol=1e-3)


def test_large_figures_are_not_cut_off() -> None:
    figures = {metric: [11.111, 33.333] for metric in rogue.METRICS}
    figures |= {"shape_rmse_mm": [1.0, 5.0], "texture_rmse": [0.1, 0.5], "cosine_distance": [0.1, 0.5]}
    written = io.StringIO()
    Console(width=80, file=written).print(rogue.table(Evaluation("exact", dict.fromkeys(SETS, figures), {})))
    printed = written.getvalue()
    assert "3.00 ± 2.83" in printed and "22.2 ± 15.7" in printed and "0.300 ± 0.283" in printed
    assert "…" not in printed


def test_the_command_writes_what_it_prints(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.__main__ import main

    assert (
        main(
            ["evaluate", "--suite", "rogue", "--checkpoint", str(checkpoint), "--subjects", "3", *trusting(checkpoint)]
        )
        == 0
    )
    printed = capsys.readouterr().out
    folder = checkpoint.parents[1] / "evaluate/rogue"
    assert {path.name for path in folder.iterdir()} == {"evaluation.json", "evaluation.csv", "evaluation.png"}
    record = json.loads((folder / "evaluation.json").read_text())
    assert list(record) == ["suite", "checkpoint", "truth", "subjects", "sets"]
    assert {name: record[name] for name in ("suite", "checkpoint", "truth", "subjects")} == {
        "suite": "rogue", "checkpoint": str(checkpoint), "truth": "exact", "subjects": 3,
    }  # fmt: skip
    assert list(record["sets"]) == SETS
    rows = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert list(rows[0]) == ["set", "metric", "mean", "std", "subjects"]
    assert [(row["set"], row["metric"]) for row in rows] == [
        *(("clean", metric) for metric in METRICS),
        *((name, metric) for name in SETS[1:] for metric in (*METRICS, "posed_drift_mm")),
    ]
    for row in rows:
        value = record["sets"][row["set"]][row["metric"]]
        assert list(value) == ["mean", "std"]
        assert (float(row["mean"]), float(row["std"]), row["subjects"]) == (value["mean"], value["std"], "3")
    with Image.open(folder / "evaluation.png") as picture:
        assert picture.width == 12 * 128
        assert picture.height > 3 * 128
    # The table: ours, and every figure of the paper's tables 1 to 3.
    shown = record["sets"]["delusional"]["shape_rmse_mm"]
    assert f"{shown['mean']:.2f} ± {shown['std']:.2f}" in printed
    assert "3 subjects against the exact truth" in printed
    assert "only orders can be compared" in " ".join(printed.split())
    for figure in ("0.425 ± 0.187", "0.197 ± 0.096", "0.053 ± 0.010", "0.320", "0.390", "0.430"):
        assert figure in printed
    table = [line for line in printed.splitlines() if not line.endswith("which is read")]
    assert max(map(len, table)) <= max(80, len(str(folder)) + 30)
    # The run's own scenes, not the default ones.
    assert training_data(checkpoint) == {"settings": {"max_yaw": 20.0}}


def test_mean_and_deviation_over_the_subjects(tmp_path: Path) -> None:
    values = [1.0, 2.0, 6.0]
    found = Evaluation("fitted", {"clean": {"error": values}}, {"clean": torch.zeros(1, 3, 8, 8)})
    summary = found.summary()["clean"]["error"]
    assert summary == {"mean": pytest.approx(np.mean(values)), "std": pytest.approx(np.std(values, ddof=1))}
    single = Evaluation("exact", {"clean": {"error": [3.0]}}, found.panels)
    assert single.summary()["clean"]["error"] == {"mean": 3.0, "std": 0.0}
    paths = write_results(tmp_path / "new/folder", "rogue", Path("a.ckpt"), found)
    assert [path.name for path in paths] == ["evaluation.json", "evaluation.csv", "evaluation.png"]
    assert all(path.is_file() for path in paths)


def test_scenes_follow_the_run_that_was_trained(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints/last.ckpt"
    assert training_data(checkpoint) == {}
    inner = {"init_args": {"settings": {"views": 3, "max_yaw": 30.0, "view_gap": [5.0, 6.0], "light_strength": 0.1}}}
    for data in (inner, {"init_args": {"data": inner, "seed": 3}}):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        settings = scene_settings(training_data(checkpoint))
        assert settings == SceneSettings(views=1, max_yaw=30.0, light_strength=0.1)
    for text in ("data: [1, 2]", "data: {init_args: 3}", "{", "nothing: here", ""):
        (tmp_path / "config.yaml").write_text(text)
        assert scene_settings(training_data(checkpoint)) == SceneSettings(views=1)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many faces each call of the fitter was given."""
    counts: list[int] = []

    def counted(model: MorphableModel, image: Tensor, *arguments: Any, **named: Any) -> Any:
        counts.append(len(image))
        return fit(model, image, *arguments, **named)

    monkeypatch.setattr(fitted_truth, "fit_settings", lambda model, contour: QUICK)
    monkeypatch.setattr(fitted_truth, "fit", counted)
    return counts


def test_photographs_are_fitted_once(tmp_path: Path, cache: Path, network: FaceModule, fits: list[int]) -> None:
    prepared_folder(tmp_path, photos=3)
    told: list[str] = []
    request = ask(subjects=5, data=tmp_path)
    found = rogue.evaluate(network, request, told.append)
    assert (found.truth, found.subjects, list(found.sets)) == ("fitted", 3, SETS)
    assert fits == [2, 1]
    assert ["3 faces of the 5 asked for" in told[0], "to 3 clean photographs" in told[1], len(told)] == [True, True, 2]
    # The truth is what the fitter makes of the whole photographs, and no network took part in it.
    (batch,) = PhotoFolder(str(tmp_path), size=64, batch_size=3, num_workers=0).predict_dataloader()
    model = small_face_model()
    direct = fit(model, batch.image, batch.landmarks, batch.skin, batch.intrinsics, settings=QUICK).coefficients
    stored = torch.cat([vector for _, vector in find_subjects(model, SIZE, request, told.append).batches])
    torch.testing.assert_close(stored, model.layout().join(direct), **CLOSE)
    # Another network of the same face model, and an oracle, which is right: no more fits.
    oracle = evaluate(Oracle(model, [stored[:2], stored[2:]]), request)
    assert not any("clean photographs" in line for line in told[2:])
    assert max(max(metrics["vertex_rmse_mm"]) for metrics in oracle.sets.values()) < 1e-3
    assert fits == [2, 1]
    # Another face model has another truth.
    evaluate(MGCNet(small_face_model(1), ResNet(18), SmallEncoder(), SIZE), replace(request, subjects=1))
    assert fits == [2, 1, 1]
    files = sorted((cache / "fits").iterdir())
    assert len(files) == 4 and all(file.suffix == ".npz" for file in files)


def test_the_truth_of_synthetic_faces_can_be_fitted_to_their_clean_pictures(cache: Path, fits: list[int]) -> None:
    request, model = ask(fitted_truth=True), small_face_model()
    told: list[str] = []
    batches = list(find_subjects(model, SIZE, request, told.append).batches)
    assert fits == [2, 1] and "to 3 clean pictures" in told[0]
    for (batch, vector), exact in zip(batches, true_vectors(ask()), strict=True):
        found = fit(model, batch.image, batch.landmarks, batch.skin, batch.intrinsics, settings=QUICK).coefficients
        torch.testing.assert_close(vector, model.layout().join(found), **CLOSE)
        assert (vector - exact).norm() > 0.01
    right = evaluate(Oracle(model, [vector for _, vector in batches]), request)
    assert right.truth == "fitted"
    assert max(max(metrics["posed_rmse_mm"]) for metrics in right.sets.values()) < 1e-3


def test_a_damaged_fit_is_made_anew(tmp_path: Path, cache: Path, network: FaceModule, fits: list[int]) -> None:
    index = prepared_folder(tmp_path, photos=1)
    model = network.face_model
    (face,) = [face for _, face in index.faces()]
    wanted = fitted_truth.fitted_coefficients(model, tmp_path, index, [face])
    file = fitted_truth._path(model, tmp_path, face)
    assert file.is_file()
    fits.clear()
    length = model.layout().length
    whole = file.read_bytes()
    for damage in (b"", b"not an archive", whole[: len(whole) // 2]):
        file.write_bytes(damage)
        torch.testing.assert_close(fitted_truth.fitted_coefficients(model, tmp_path, index, [face]), wanted, **CLOSE)
    for wrong in ({"other": np.zeros(3)}, {"coefficients": np.zeros(3, np.float32)},
                  {"coefficients": np.full(length, np.nan, np.float32)},
                  {"coefficients": np.array([object()] * length)}):  # fmt: skip
        np.savez(file, **wrong)
        torch.testing.assert_close(fitted_truth.fitted_coefficients(model, tmp_path, index, [face]), wanted, **CLOSE)
    assert len(fits) == 7
    fitted_truth.fitted_coefficients(model, tmp_path, index, [face])
    assert len(fits) == 7
    # Another picture under the same name is another face.
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "images" / f"{face.name}.png")
    assert fitted_truth._path(model, tmp_path, face) != file


def test_training_photographs_are_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    prepared_folder(photos, photos=1)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"root": str(photos)}}}))
    told: list[str] = []
    request = ask(subjects=1, data=photos, checkpoint=tmp_path / "checkpoints/last.ckpt")
    find_subjects(small_face_model(), SIZE, request, told.append)
    assert "trained on" in told[0]


def test_wrong_photographs_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="not a folder of prepared faces: run"):
            find_subjects(small_face_model(), SIZE, ask(data=folder), print)
    PhotoIndex(64, "dlib", False, "photos").save(tmp_path)
    with pytest.raises(UserError, match="holds no face"):
        find_subjects(small_face_model(), SIZE, ask(data=tmp_path), print)
    prepared_folder(tmp_path, photos=1)
    (tmp_path / "skin/p0-0.png").unlink()
    with pytest.raises(UserError, match=r"skin/p0-0\.png is missing or damaged"):
        find_subjects(small_face_model(), SIZE, ask(data=tmp_path), print)


def test_answers_that_are_not_finite_are_refused() -> None:
    request = ask(subjects=1)
    with pytest.raises(UserError, match="not finite"):
        evaluate(Oracle(small_face_model(), [true_vectors(request)[0] * torch.nan]), request)


def test_errors_are_one_line(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.ckpt").write_text("not weights")
    section = {"class_path": "tests.conf.tiny.TinyModule", "init_args": {}}
    tiny = {"state_dict": TinyModule().state_dict(), CONFIG_KEY: yaml.safe_dump(section), "face_model": "first"}
    torch.save(tiny, tmp_path / "tiny.ckpt")
    rogue_of = ["evaluate", "--suite", "rogue", *trusting(checkpoint), "--checkpoint"]
    for arguments, said in (
        ([*rogue_of, str(tmp_path / "none.ckpt")], "no such file"),
        ([*rogue_of, str(tmp_path)], "folder"),
        ([*rogue_of, str(tmp_path / "text.ckpt")], "damaged, or not a checkpoint"),
        ([*rogue_of, str(tmp_path / "tiny.ckpt")], "holds a TinyModule, which reconstructs no faces"),
        ([*rogue_of, str(checkpoint), "--data", str(tmp_path)], "prepare photos"),
        ([*rogue_of, str(checkpoint), "--output", str(tmp_path / "text.ckpt")], "name a folder"),
        (["evaluate", "--suite", "heads", "--fitted_truth"], "--fitted_truth is of --suite rogue"),
        ([*rogue_of, str(checkpoint), "--data", str(tmp_path), "--fitted_truth"], "photographs is always fitted"),
        ([*rogue_of, str(checkpoint), "--subjects", "0"], "'0' is not a whole number from 1"),
        ([*rogue_of, str(checkpoint), "--batch_size", "none"], "'none' is not a whole number from 1"),
        ([*rogue_of, str(checkpoint), "--seed", "-1"], "'-1' is not a whole number from 0"),
        (
            ["evaluate", "--suite", "nowhere", "--checkpoint", str(checkpoint)],
            "'nowhere' (choose from 'rogue', 'aflw2000', 'now',",
        ),
        (["evaluate", "--suite", "rogue"], "--checkpoint"),
    ):
        assert said in complaint(capsys, arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.ckpt", "tiny.ckpt"]


def test_where_results_go(tmp_path: Path, checkpoint: Path) -> None:
    assert command.default_output(checkpoint, "rogue") == checkpoint.parents[1] / "evaluate/rogue"
    assert command.default_output(tmp_path / "mine.ckpt", "rogue") == tmp_path / "mine/evaluate/rogue"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--suite", "rogue", "--checkpoint", "a.ckpt"])
    assert (args.subjects, args.seed, args.data, args.output) == (None, 0, None, None)
