"""BFM 2017/2019 and AlbedoMM against what was written into files of their layout, and against other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from renderers.face_models.base import MorphableModel
from renderers.face_models.bfm_h5 import _named_landmarks, load_bfm_h5
from renderers.face_models.load import load_face_model
from renderers.io.errors import UserError
from tests.conf.fake_bfm_h5 import (
    ALBEDO,
    COLOR,
    EXPRESSION,
    IDENTITY,
    NAMED_POINTS,
    FakeFace,
    fake_albedo,
    fake_bfm_h5,
    named_landmarks,
)
from tests.conf.write_hdf5 import write_hdf5

ROOT = Path(__file__).parents[3]
PARTS = ("shape", "expression", "color")
NAMES = [f"{part}/model/{field}" for part in PARTS for field in ("mean", "pcaBasis", "pcaVariance")]
NAMES.append("shape/representer/cells")


@pytest.fixture(scope="module")
def fake() -> FakeFace:
    return fake_bfm_h5(seed=3)


@pytest.fixture(scope="module")
def count(fake: FakeFace) -> int:
    return fake.arrays["shape/representer/points"].shape[1]


@pytest.fixture(scope="module")
def albedo(count: int) -> dict[str, np.ndarray]:
    return fake_albedo(count)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, fake: FakeFace, albedo: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("bfm")
    write_hdf5(folder / "model2017-1_face12_nomouth.h5", fake.arrays)
    write_hdf5(folder / "albedo.h5", albedo)
    return folder


@pytest.fixture(scope="module")
def model(files: Path) -> MorphableModel:
    return load_bfm_h5(files / "model2017-1_face12_nomouth.h5")


@pytest.fixture(scope="module")
def lit(files: Path) -> MorphableModel:
    return load_bfm_h5(files / "model2017-1_face12_nomouth.h5", files / "albedo.h5")


def saved(path: Path, content: Mapping[str, object], **changes: object) -> Path:
    members = {key: value for key, value in {**content, **changes}.items() if value is not None}
    return write_hdf5(path / "bad.h5", members)  # type: ignore[arg-type]


def message(path: Path, albedo: Path | None = None) -> str:
    with pytest.raises(UserError) as raised:
        load_bfm_h5(path, albedo)
    text = str(raised.value)
    assert "\n" not in text
    assert str(path if albedo is None else albedo) in text
    return text


def part(arrays: dict[str, np.ndarray], name: str, coefficients: torch.Tensor) -> np.ndarray:
    """(B, V, 3) mean and modes as the file has them: mean + basis (sqrt(variance) coefficients)."""
    mean, basis, variance = (
        arrays[f"{name}/model/{field}"].astype(float) for field in ("mean", "pcaBasis", "pcaVariance")
    )
    return (mean + (coefficients.numpy() * np.sqrt(variance)) @ basis.T).reshape(len(coefficients), -1, 3)


def draw(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, size, generator=torch.Generator().manual_seed(seed))


def test_decodes_as_the_files_own_arithmetic(model: MorphableModel, fake: FakeFace) -> None:
    identity, expression, color = draw(IDENTITY), draw(EXPRESSION, 1), draw(COLOR, 2)
    zero = part(fake.arrays, "shape", draw(IDENTITY) * 0) + part(fake.arrays, "expression", draw(EXPRESSION) * 0)
    shape = part(fake.arrays, "shape", identity) + part(fake.arrays, "expression", expression)
    decoded = 100 * model.shape(identity, expression).numpy()
    np.testing.assert_allclose(decoded, shape - zero.mean(axis=1, keepdims=True), atol=1e-3)
    np.testing.assert_allclose(model.albedo(color).numpy(), part(fake.arrays, "color", color), atol=1e-5)
    assert model.mean_shape.mean(dim=0).abs().max() < 1e-6
    assert model.layout().sizes["identity"] == IDENTITY and not model.has_specular
    assert model.name == "model2017-1_face12_nomouth"
    assert model.uv.min() == 0 and model.uv.max() == 1


def test_landmarks_and_regions_come_from_the_default(model: MorphableModel, fake: FakeFace) -> None:
    points = 100 * model.mean_shape.numpy()
    error = np.linalg.norm(points[model.landmark_indices.numpy()] - points[fake.landmarks], axis=1)
    assert error.max() < 3
    eyes = set(model.regions["eyes"].tolist())
    assert len(eyes & set(fake.regions["eyes"].tolist())) > 0.9 * len(eyes) > 100
    assert not eyes & set(model.regions["skin"].tolist())


def test_faces_are_turned_towards_the_viewer(tmp_path: Path, fake: FakeFace, model: MorphableModel) -> None:
    name = "shape/representer/cells"
    turned = saved(tmp_path, fake.arrays, **{name: fake.arrays[name][::-1]})
    other = load_bfm_h5(turned)
    normals = other.normals(other.mean_shape[None])[0]
    assert normals[other.landmark_indices[30], 2] > 0.5
    torch.testing.assert_close(normals, model.normals(model.mean_shape[None])[0], atol=1e-4, rtol=0)


def test_chunked_and_foreign_byte_order_read_the_same(tmp_path: Path, fake: FakeFace, model: MorphableModel) -> None:
    swapped = {name: value.astype(value.dtype.newbyteorder(">")) for name, value in fake.arrays.items()}
    path = write_hdf5(tmp_path / "packed.h5", swapped, packed=True)
    assert load_bfm_h5(path).fingerprint() == model.fingerprint()


class TestAlbedo:
    def test_shares_its_coefficients_and_is_linear(
        self, lit: MorphableModel, model: MorphableModel, albedo: dict[str, np.ndarray]
    ) -> None:
        coefficients = draw(ALBEDO)
        diffuse, specular = (part(albedo, name, coefficients) for name in ("diffuseAlbedo", "specularAlbedo"))
        shown = lit.albedo(coefficients).numpy()
        bright = diffuse > 0.003
        np.testing.assert_allclose(shown[bright], diffuse[bright] ** (1 / 2.2), atol=2e-5)
        np.testing.assert_allclose(lit.specular(coefficients).numpy(), specular, atol=2e-5)
        assert lit.linear_albedo and lit.albedo_size == ALBEDO
        assert torch.equal(lit.mean_shape, model.mean_shape)

    def test_of_another_mesh_names_both_counts(self, tmp_path: Path, files: Path, count: int) -> None:
        other = write_hdf5(tmp_path / "albedo.h5", fake_albedo(count - 1))
        text = message(files / "model2017-1_face12_nomouth.h5", other)
        assert f"an albedo of {count - 1} vertices for a face of {count}" in text
        assert "belongs to BFM 2017 face12 (28588 vertices), and not to BFM 2019" in text

    def test_needs_no_colour_of_the_model(self, tmp_path: Path, files: Path, fake: FakeFace) -> None:
        colorless = {name: value for name, value in fake.arrays.items() if not name.startswith("color")}
        path = write_hdf5(tmp_path / "model.h5", colorless)
        assert load_bfm_h5(path, files / "albedo.h5").has_specular
        assert "no color in it" in message(path)

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("specularAlbedo/model/pcaVariance", None, "no specularAlbedo/model/pcaVariance in it"),
            ("specularAlbedo/model/pcaBasis", np.zeros((12, 5)), "pcaBasis has shape (12, 5)"),
            ("diffuseAlbedo/model/pcaVariance", np.full(ALBEDO, -1.0), "holds -1; a variance is not below 0"),
            ("diffuseAlbedo/model/mean", "scaled", "expected colours from 0 to 1"),
        ],
    )
    def test_wrong_parts_are_named(
        self, tmp_path: Path, files: Path, albedo: dict[str, np.ndarray], name: str, value: object, expected: str
    ) -> None:
        value = 255 * albedo[name] if isinstance(value, str) else value
        path = saved(tmp_path, albedo, **{name: value})
        assert expected in message(files / "model2017-1_face12_nomouth.h5", path)

    def test_parts_of_different_sizes_are_refused(
        self, tmp_path: Path, files: Path, albedo: dict[str, np.ndarray]
    ) -> None:
        basis, variance = (albedo[f"specularAlbedo/model/{field}"] for field in ("pcaBasis", "pcaVariance"))
        less = {"specularAlbedo/model/pcaBasis": basis[:, 1:], "specularAlbedo/model/pcaVariance": variance[1:]}
        path = saved(tmp_path, albedo, **less)
        assert "have 5 and 4 modes" in message(files / "model2017-1_face12_nomouth.h5", path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named(tmp_path: Path, fake: FakeFace, name: str) -> None:
    assert f"no {name} in it" in message(saved(tmp_path, fake.arrays, **{name: None}))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("shape/model/mean", np.zeros(10), "shape/model/mean has shape (10,), expected (3V,)"),
        ("shape/model/mean", np.zeros((4, 3)), "shape/model/mean has shape (4, 3)"),
        ("shape/model/mean", np.zeros(12), "shape/model/pcaBasis has shape"),
        ("expression/model/mean", np.zeros(12), "expression/model/mean has shape (12,)"),
        ("color/model/mean", np.zeros(12), "color/model/mean has shape (12,)"),
        ("expression/model/pcaBasis", np.zeros((6, 12)), "expression/model/pcaBasis has shape (6, 12)"),
        ("shape/model/pcaVariance", np.ones(IDENTITY + 1), f"expected ({IDENTITY},)"),
        ("shape/representer/cells", np.zeros((4, 3), np.int32), "cells has shape (4, 3), expected (3, any)"),
        ("shape/representer/cells", np.full((3, 4), 10**6), "cells holds 1000000 to 1000000, expected whole numbers"),
        ("shape/representer/cells", np.full((3, 4), -1), "cells holds -1 to -1"),
        ("shape/representer/cells", np.full((3, 4), 0.5), "cells holds 0.5 to 0.5"),
        ("shape/model/pcaVariance", np.full(IDENTITY, np.nan), "pcaVariance holds values that are not finite"),
        ("color/model/mean", "a text", "color/model/mean holds object, not numbers"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, fake: FakeFace, name: str, value: object, expected: str) -> None:
    assert expected in message(saved(tmp_path, fake.arrays, **{name: value}))


@pytest.mark.parametrize(("factor", "found"), [(1e3, "e+05"), (1e-2, "")])
def test_other_units_are_refused(tmp_path: Path, fake: FakeFace, factor: float, found: str) -> None:
    means = {name: factor * fake.arrays[name] for name in ("shape/model/mean", "expression/model/mean")}
    text = message(saved(tmp_path, fake.arrays, **means))
    assert f"{found} high, expected 80 to 600 millimetres" in text


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    assert "no such file" in message(path)
    path.write_bytes(b"")
    assert "it is no HDF5 file" in message(path)
    path.write_bytes(bytes(range(256)) * 8)
    assert "it is no HDF5 file" in message(path)


class TestNamedLandmarks:
    NAME = "metadata/landmarks/json"

    def test_are_vertices_of_the_reference_mesh(self, tmp_path: Path) -> None:
        """The mean may be another face than the mesh that the names lie on: each point is that mesh's vertex."""
        fake = fake_bfm_h5(6, identity=0.8)
        moved = fake.arrays["shape/representer/points"] * [[1.1], [0.9], [1.2]] + 7.0
        arrays = {**fake.arrays, "shape/representer/points": moved}
        text = named_landmarks(FakeFace(arrays, fake.landmarks, fake.places, fake.regions))
        model = load_bfm_h5(saved(tmp_path, arrays, **{self.NAME: np.bytes_(text.encode())}))
        points = list(NAMED_POINTS.values())
        assert model.landmark_indices[points].tolist() == fake.landmarks[points].tolist()

    def test_those_of_a_wider_cropping_are_passed_over(self, tmp_path: Path, fake: FakeFace) -> None:
        place = [1.0, 2.0, 999.0]
        text = json.dumps([{"id": "center.nose.tip", "coordinates": place}, {"id": "glabella", "coordinates": place}])
        path = saved(tmp_path, fake.arrays, **{self.NAME: text})
        assert (_named_landmarks(path, fake.arrays["shape/representer/points"].shape[1]) == -1).all()

    @pytest.mark.parametrize(
        "text",
        [
            "[",
            "7",
            "[" * 100_000,
            '[{"id": [], "coordinates": 1}]',
            '[{"id": "center.nose.tip"}]',
            '[{"id": "center.nose.tip", "coordinates": [1, 2]}]',
            '[{"id": "center.nose.tip", "coordinates": ["x", 2, 3]}]',
            '[{"id": "center.nose.tip", "coordinates": [NaN, 0, 0]}]',
        ],
    )
    def test_damaged_ones_are_named(self, tmp_path: Path, fake: FakeFace, text: str) -> None:
        assert "metadata/landmarks/json does not hold" in message(saved(tmp_path, fake.arrays, **{self.NAME: text}))

    def test_a_wrong_reference_mesh_is_named(self, tmp_path: Path, fake: FakeFace) -> None:
        text, points = named_landmarks(fake), "shape/representer/points"
        path = saved(tmp_path, fake.arrays, **{self.NAME: text, points: None})
        assert f"no {points} in it" in message(path)
        path = saved(tmp_path, fake.arrays, **{self.NAME: text, points: np.zeros((3, 9))})
        assert f"{points} has shape (3, 9), expected (3, " in message(path)


class TestLandmarkFile:
    def test_replaces_the_points_that_were_found(self, tmp_path: Path, files: Path, fake: FakeFace) -> None:
        given = tmp_path / "points.txt"
        given.write_text("\n".join(str(index) for index in fake.landmarks))
        model = load_bfm_h5(files / "model2017-1_face12_nomouth.h5", landmarks=given)
        assert (model.landmark_indices.numpy() == fake.landmarks).all()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("1 2 3", "it has 3 words"), ("9999999 " * 68, "'9999999' is none"), ("-1 " * 68, "'-1' is none")],
    )
    def test_wrong_ones_are_named(self, tmp_path: Path, files: Path, text: str, expected: str) -> None:
        given = tmp_path / "points.txt"
        given.write_text(text)
        with pytest.raises(UserError, match="expected 68 vertex indices from 0 to") as raised:
            load_bfm_h5(files / "model2017-1_face12_nomouth.h5", landmarks=given)
        assert expected in str(raised.value)

    def test_an_absent_one_is_named(self, tmp_path: Path, files: Path) -> None:
        with pytest.raises(UserError, match=r"none\.txt: landmarks cannot be read"):
            load_bfm_h5(files / "model2017-1_face12_nomouth.h5", landmarks=tmp_path / "none.txt")


class TestLoadFaceModel:
    def test_the_shipped_configuration_names_both_files(self, files: Path, lit: MorphableModel) -> None:
        shipped = yaml.safe_load((ROOT / "experiments" / "shared" / "face_model_bfm2017.yaml").read_text())
        assert shipped["class_path"] == f"{load_face_model.__module__}.{load_face_model.__name__}"
        arguments = shipped["init_args"]
        assert Path(arguments["spec"]).name == "model2017-1_face12_nomouth.h5"
        paths = {"spec": str(files / Path(arguments["spec"]).name), "albedo": str(files / "albedo.h5")}
        assert set(arguments) == set(paths)
        assert load_face_model(**paths).fingerprint() == lit.fingerprint()

    @pytest.mark.parametrize("argument", ["albedo", "landmarks"])
    def test_arguments_of_other_kinds_are_refused(self, files: Path, argument: str) -> None:
        for spec in ("default", "BFM_model_front.mat"):
            with pytest.raises(UserError, match=f"{argument}=x goes with a BFM 2017 or 2019"):
                load_face_model(spec, **{argument: "x"})
        with pytest.raises(UserError, match="subdivide=1 is for the default"):
            load_face_model(str(files / "model2017-1_face12_nomouth.h5"), subdivide=1)
