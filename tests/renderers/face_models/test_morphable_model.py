"""The linear decoder against NumPy, its normals against trimesh and a loop over faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from renderers.color import decode, encode
from renderers.face_models.linear import LinearModel
from renderers.io.errors import UserError

SIZES = {"identity": 5, "expression": 4, "albedo": 3}


def parts(mesh: trimesh.Trimesh, seed: int = 0) -> dict[str, Any]:
    """Random bases over a mesh; the landmarks are its vertices, over and over."""
    rng = np.random.default_rng(seed)
    count = len(mesh.vertices)
    return {
        "name": "random",
        "mean_shape": np.array(mesh.vertices),
        "identity_basis": rng.normal(size=(count, 3, SIZES["identity"])),
        "expression_basis": rng.normal(size=(count, 3, SIZES["expression"])),
        "mean_albedo": rng.uniform(size=(count, 3)),
        "albedo_basis": rng.normal(size=(count, 3, SIZES["albedo"])),
        "faces": np.array(mesh.faces),
        "landmark_indices": np.arange(68) % count,
        "uv": rng.uniform(size=(count, 2)),
        "regions": {"skin": np.arange(count)},
    }


@pytest.fixture
def content() -> dict[str, Any]:
    return parts(trimesh.creation.icosphere(subdivisions=1))


@pytest.fixture
def model(content: dict[str, Any]) -> LinearModel:
    return LinearModel(**content)


def draw(batch: int, size: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, size, generator=torch.Generator().manual_seed(seed))


def test_shape_and_albedo_equal_einsum(model: LinearModel, content: dict[str, Any]) -> None:
    identity, expression, albedo = draw(3, 5), draw(3, 4, 2), draw(3, 3, 3)
    shape = (
        content["mean_shape"]
        + np.einsum("vck,bk->bvc", content["identity_basis"], identity.numpy())
        + np.einsum("vck,bk->bvc", content["expression_basis"], expression.numpy())
    )
    color = content["mean_albedo"] + np.einsum("vck,bk->bvc", content["albedo_basis"], albedo.numpy())
    np.testing.assert_allclose(model.shape(identity, expression).numpy(), shape, atol=1e-5)
    np.testing.assert_allclose(model.albedo(albedo).numpy(), color, atol=1e-5)


def test_bases_come_back_as_they_went_in(model: LinearModel, content: dict[str, Any]) -> None:
    for name in ("identity_basis", "expression_basis", "albedo_basis"):
        np.testing.assert_allclose(getattr(model, name).numpy(), content[name], rtol=1e-6)


def test_specular_shares_the_albedos_coefficients(content: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    mean, basis = rng.uniform(size=(42, 3)), rng.normal(size=(42, 3, 3))
    model = LinearModel(**content, mean_specular=mean, specular_basis=basis)
    coefficients = draw(2, 3)
    expected = mean + np.einsum("vck,bk->bvc", basis, coefficients.numpy())
    bright = expected > 0.1
    np.testing.assert_allclose(model.specular(coefficients).numpy()[bright], expected[bright] ** 2.2, rtol=1e-4)
    with pytest.raises(UserError, match="random has no specular"):
        LinearModel(**content).specular(coefficients)


def test_decoding_passes_gradcheck(model: LinearModel) -> None:
    model = model.double()
    identity, expression = draw(1, 5).double().requires_grad_(), draw(1, 4).double().requires_grad_()
    albedo = draw(1, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: model.normals(model.shape(a, b)), (identity, expression))
    assert torch.autograd.gradcheck(model.albedo, (albedo,))


def test_layout_has_the_models_sizes(model: LinearModel) -> None:
    layout = model.layout({"shininess": 1})
    assert layout.length == 5 + 4 + 3 + 3 + 27 + 3 + 1
    assert {name: layout.sizes[name] for name in SIZES} == SIZES


class TestNormals:
    def test_point_outward_on_a_sphere_as_trimesh_says(self) -> None:
        sphere = trimesh.creation.icosphere(subdivisions=3, radius=1.3)
        model = LinearModel(**parts(sphere))
        normals = model.normals(model.mean_shape[None])[0].numpy()
        # Area and angle weights differ by little on a regular mesh, and both by little from the sphere's own normal.
        assert (normals * sphere.vertex_normals).sum(axis=1).min() > 0.9999
        assert (normals * sphere.vertices / 1.3).sum(axis=1).min() > 0.999

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), vertices=st.integers(4, 12), faces=st.integers(1, 20))
    def test_are_area_weighted_on_any_mesh(self, seed: int, vertices: int, faces: int) -> None:
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(vertices, 3))
        triangles = np.stack([rng.permutation(vertices)[:3] for _ in range(faces)])
        model = LinearModel(**parts(trimesh.Trimesh(points, triangles, process=False)))
        expected = np.zeros((vertices, 3))
        for i, j, k in triangles:
            area = np.linalg.norm(np.cross(points[j] - points[i], points[k] - points[i])) / 2
            unit = np.cross(points[j] - points[i], points[k] - points[i]) / (2 * area)
            for vertex in (i, j, k):
                expected[vertex] += area * unit
        length = np.linalg.norm(expected, axis=1, keepdims=True)
        # Where faces cancel the direction is rounding error; a vertex without faces has the zero normal.
        clear = (length > 1e-3)[:, 0]
        found = model.normals(torch.tensor(points).float()[None])[0].numpy()
        np.testing.assert_allclose(found[clear], expected[clear] / length[clear], atol=2e-3)
        alone = np.setdiff1d(np.arange(vertices), triangles)
        assert (found[alone] == 0).all()

    def test_turn_with_the_face(self, model: LinearModel) -> None:
        vertices = model.shape(draw(2, 5) * 0.1, draw(2, 4) * 0.1)
        rotation = torch.linalg.qr(draw(3, 3, 7)).Q
        rotation = rotation * torch.linalg.det(rotation)
        turned = model.normals(vertices @ rotation.T + torch.tensor([1.0, -2.0, 3.0]))
        torch.testing.assert_close(turned, model.normals(vertices) @ rotation.T, atol=1e-4, rtol=0)


class TestCheckpoints:
    def test_hold_no_face_data(self, content: dict[str, Any]) -> None:
        rng = np.random.default_rng(5)
        specular = {"mean_specular": rng.uniform(size=(42, 3)), "specular_basis": rng.normal(size=(42, 3, 3))}
        model = LinearModel(**content, **specular)
        assert model.state_dict() == {}
        assert list(model.parameters()) == []

    @pytest.mark.parametrize(
        "name", ["mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis"]
    )
    def test_fingerprint_changes_with_what_is_decoded(self, content: dict[str, Any], name: str) -> None:
        before = LinearModel(**content).fingerprint()
        changed = content[name].copy()
        changed.flat[7] += 0.25
        after = LinearModel(**{**content, name: changed}).fingerprint()
        assert before != after
        assert len(after) == len(before) == 12

    def test_fingerprint_changes_with_the_faces(self, content: dict[str, Any]) -> None:
        before = LinearModel(**content).fingerprint()
        assert LinearModel(**{**content, "faces": content["faces"][:, [1, 2, 0]]}).fingerprint() != before
        assert LinearModel(**{**content, "faces": content["faces"][:-1]}).fingerprint() != before

    def test_fingerprint_is_of_the_face_alone(self, content: dict[str, Any]) -> None:
        model = LinearModel(**content)
        renamed = LinearModel(**{**content, "name": "another", "regions": {"skin": np.arange(3)}})
        assert model.fingerprint() == renamed.fingerprint() == LinearModel(**content).fingerprint()


class TestLinearAlbedo:
    @staticmethod
    def models(content: dict[str, Any]) -> tuple[LinearModel, LinearModel]:
        rng = np.random.default_rng(5)
        content = {**content, "mean_specular": rng.uniform(size=(42, 3)), "specular_basis": rng.normal(size=(42, 3, 3))}
        return LinearModel(**content), LinearModel(**content, linear_albedo=True)

    def test_is_converted_once(self, content: dict[str, Any]) -> None:
        """`albedo` is of display values and `specular` of linear light, whichever of the two the model stores."""
        display, linear = self.models(content)
        coefficients = draw(4, 3)
        stored, shown = display.albedo(coefficients), linear.albedo(coefficients)
        assert (stored < 0).any() and (stored > 0.5).any()
        torch.testing.assert_close(shown, encode(stored))
        stored, light = linear.specular(coefficients), display.specular(coefficients)
        torch.testing.assert_close(light, decode(stored))

    def test_has_a_bounded_gradient_where_it_is_dark(self, content: dict[str, Any]) -> None:
        linear = LinearModel(**{**content, "mean_albedo": np.zeros((42, 3))}, linear_albedo=True).double()
        coefficients = torch.zeros(1, 3, dtype=torch.double, requires_grad=True)
        linear.albedo(coefficients).sum().backward()
        assert coefficients.grad is not None and coefficients.grad.isfinite().all()
        away = (0.3 * draw(1, 3).double()).requires_grad_()
        bright = LinearModel(**{**content, "mean_albedo": np.full((42, 3), 9.0)}, linear_albedo=True).double()
        assert torch.autograd.gradcheck(bright.albedo, (away,))

    def test_slopes_are_the_derivative_of_what_is_shown(self, content: dict[str, Any]) -> None:
        for model in self.models(content):
            coefficients = 0.5 * draw(1, 3)
            slopes = torch.autograd.functional.jacobian(model.albedo, coefficients)[0, :, :, 0]
            torch.testing.assert_close(model.albedo_slopes(coefficients[0]), slopes)

    def test_shows_in_the_fingerprint(self, content: dict[str, Any]) -> None:
        display, linear = self.models(content)
        assert display.fingerprint() != linear.fingerprint()
        assert display.fingerprint() == LinearModel(**content).fingerprint()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("identity_basis", np.zeros((41, 3, 5)), r"identity_basis has shape \(41, 3, 5\), expected \(42, 3, 5\)"),
        ("mean_albedo", np.zeros((42, 4)), r"mean_albedo has shape \(42, 4\), expected \(42, 3\)"),
        ("landmark_indices", np.arange(5), r"landmark_indices has shape \(5,\), expected \(68,\)"),
        ("mean_shape", np.full((42, 3), np.nan), "mean_shape holds values that are not finite"),
        ("faces", np.array([[0, 1, 42]]), r"faces names a vertex outside 0\.\.41"),
        ("regions", {"skin": np.array([-1])}, r"skin names a vertex outside 0\.\.41"),
        ("regions", {"lips": np.array([1])}, "names no `skin` region"),
    ],
)
def test_arrays_that_disagree_are_refused(content: dict[str, Any], name: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError, match=f"face model random: .*{expected}"):
        LinearModel(**{**content, name: value})
