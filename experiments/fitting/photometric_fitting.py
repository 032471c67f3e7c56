"""Analysis by synthesis: fits a face model to photographs by optimization, no network needed.

Three stages, batched over faces: (a) rigid pose from the landmarks, (b) identity, expression and pose as the maximum a
posteriori of the landmarks (Levenberg-Marquardt), (c) illumination and albedo by least squares, the lids by trial, then
everything together on the pixels (Adam). ROGUE takes its ground truth from here, `reconstruct` its result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from datamodules.synthesis.landmark_noise import LandmarkNoise, measured_noise
from experiments.fitting.adam import Adam
from experiments.fitting.landmark_fitting import LandmarkProblem, SecondOpinion, fit_landmarks, rigid_pose
from experiments.fitting.lid_fitting import fit_lids
from losses.photometric import render_loss
from renderers.camera import euler_to_rotation, project_by, transform
from renderers.coefficients import Coefficients
from renderers.face_models.base import MorphableModel
from renderers.face_models.linear import LinearModel
from renderers.face_renderer import FaceRenderer, Rendering, mean_coefficients
from renderers.illumination import AMBIENT, irradiance, spherical_harmonics_basis
from renderers.io.errors import UserError
from renderers.jaw_contour import ContourTable, contour_table, gather_vertices, visible_landmarks
from renderers.landmarks68 import LANDMARKS

LIDS = ("eyeBlink", "eyeSquint")  # how the names of the expressions that close the eyes begin
# Of a regressor's own deviation. Chosen on development heads, where 1.5, 1, 0.7 and 0.45 leave medians of 0.79, 0.77,
# 0.74 and 0.73 mm: landmarks and pixels are trusted too much, and a narrower prior makes up for it.
PRIOR_SHARE = 0.5
LEAST = 0.2  # of the settings' deviation: validation heads may never show what a photograph does, as a tongue
TYPICAL_COLOR_ERROR = 0.05  # of a fitted face, in [0, 1]


@dataclass(frozen=True)
class FitSettings:
    """What the fitter trusts, and for how long it works.

    Attributes:
        landmark_noise: standard deviation of a detected landmark, as a share of sqrt(box w * h) of the landmarks; None
            takes dlib's own errors as `landmark_noise.npz` holds them, correlated and with their bias.
        identity_deviation: standard deviation of the identity prior, in coefficients.
        expression_deviation: the same for the expression.
        lid_deviation: the same for the expressions that close the eyes (`LIDS`), which are often 1 and not only near 0.
        expression_bounds: least and most for models whose expressions are blend weights; none where absent.
        moving_contour: whether the jaw landmarks of the side that turns away mark the visible contour, as dlib's do,
            and not fixed points of the head.
        landmark_rounds: rounds of contour, robust weights and a few Levenberg-Marquardt steps.
        photometric_iterations: Adam steps on the pixels; 0 leaves geometry to the landmarks.
        photometric_size: pixels of the images' longer side while fitting to them.
        photometric_noise: the mean colour error that weighs as much as one standard deviation of one coefficient,
            in [0, 1]; smaller trusts the pixels more.
        learning_rate: of Adam, for coefficients of unit deviation; angles and translation take a tenth.
    """

    landmark_noise: float | None = 0.02
    identity_deviation: float = 1.0
    expression_deviation: float = 1.0
    lid_deviation: float = 1.0
    expression_bounds: tuple[float, float] | None = None
    moving_contour: bool = True
    landmark_rounds: int = 6
    photometric_iterations: int = 80
    photometric_size: int = 128
    photometric_noise: float = 0.001
    learning_rate: float = 0.03


@dataclass
class FitResult:
    """Fitted faces. B faces.

    Attributes:
        coefficients: of B faces, detached.
        landmarks: (B, 68, 2) pixels of the input images: the fitted face's landmarks; with `moving_contour`, those of
            the jaw's far side lie on the visible contour.
        landmark_vertices: (B, 68) the vertices that `landmarks` are the images of.
        history: by name, one value per photometric iteration, mean over faces: `energy`, `photometric` (mean colour
            error), `landmark` (mean point distance in percent of sqrt(box w * h)).
        seconds: wall time of the stages `pose`, `landmarks` and `photometric`.
    """

    coefficients: Coefficients
    landmarks: Tensor
    landmark_vertices: Tensor
    history: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def index(self, rows: slice) -> FitResult:
        """Some of the faces; history and seconds stay those of all."""
        landmarks, vertices = self.landmarks[rows], self.landmark_vertices[rows]
        return replace(
            self, coefficients=self.coefficients.index(rows), landmarks=landmarks, landmark_vertices=vertices
        )

    def cpu(self) -> FitResult:
        """The same on the CPU."""
        moved = self.coefficients.to("cpu"), self.landmarks.cpu(), self.landmark_vertices.cpu()
        return FitResult(*moved, self.history, self.seconds)


@torch.no_grad()
def project_landmarks(
    renderer: FaceRenderer, coefficients: Coefficients, intrinsics: Tensor, contour: ContourTable | None = None
) -> tuple[Tensor, Tensor]:
    """(B, 68, 2) pixels: the face's landmarks, as a renderer's camera sees them; and the (B, 68) vertices they show.

    Args:
        renderer: of the faces.
        coefficients: of B faces.
        intrinsics: (B, 3, 3) pixels.
        contour: `contour_table` of the face model moves those of the jaw's far side to the visible contour.
    """
    face_model, translation = renderer.face_model, coefficients.translation
    shape = face_model.shape(coefficients.identity, coefficients.expression)
    vertices = transform(shape, euler_to_rotation(coefficients.angles), translation)
    intrinsics = renderer.regressed_intrinsics(coefficients, intrinsics)
    vertices_image = project_by(renderer.camera, vertices, translation, intrinsics)
    rows = visible_landmarks(contour, face_model.landmark_indices, vertices_image, coefficients.angles)
    return gather_vertices(vertices_image, rows)[..., :2], rows


def fit(
    face_model: MorphableModel,
    image: Tensor,
    landmarks: Tensor,
    skin: Tensor,
    intrinsics: Tensor,
    initial: Coefficients | None = None,
    settings: FitSettings | None = None,
    renderer: FaceRenderer | None = None,
    views: int = 1,
    deviation: Tensor | None = None,
    second: SecondOpinion | None = None,
) -> FitResult:
    """Fit `face_model` to B aligned faces.

    Args:
        face_model: the decoder, on the images' device.
        image: (B, 3, H, W) sRGB in [0, 1].
        landmarks: (B, 68, 2) detected points, pixels of `image`.
        skin: (B, 1, H, W) in [0, 1], how much each pixel may say about colour.
        intrinsics: (B, 3, 3) pixels of `image`.
        initial: a regressor's answer: identity, expression, albedo and light start there, the prior is centred on it;
            what a paper adds to the coefficients is kept.
        settings: the defaults of `FitSettings` where absent.
        renderer: whose camera and light the faces are fitted in; a `FaceRenderer` where absent.
        views: so many pictures in a row show one person: they share identity and albedo, and nothing else.
        deviation: (I + E,) that of the errors in `initial`'s identity and expression; the prior is as narrow.
        second: the landmarks as another source has them.

    Raises:
        UserError: an input of the wrong shape, one that holds values that are not finite, landmarks without extent, or
            a face model that is not linear.
    """
    if not isinstance(face_model, LinearModel):
        raise UserError(f"face model {face_model.name} is not linear, and the fitter needs that: use --no-fit")
    settings, renderer = settings or FitSettings(), renderer or FaceRenderer(face_model).to(image.device)
    _check(face_model, image, landmarks, skin, intrinsics, initial)
    seconds: dict[str, float] = {}
    with torch.no_grad():
        clock = time.perf_counter()
        start = initial.detach() if initial is not None else mean_coefficients(face_model, len(image), image.device)
        start = _shared(_plausible(start, settings), views)
        even = settings.landmark_noise
        noise = measured_noise() if even is None else LandmarkNoise.even(even)
        problem = LandmarkProblem(
            mean=start,
            target=landmarks,
            intrinsics=renderer.regressed_intrinsics(start, intrinsics),
            camera=renderer.camera,
            noise=noise.to(image),
            doubt=image.new_ones((len(image), LANDMARKS)),
            deviation=_prior_deviation(face_model, settings, deviation).to(image),
            expression_bounds=settings.expression_bounds,
            views=views,
            second=second,
        )
        contour = contour_table(face_model) if settings.moving_contour else None
        angles, translation = rigid_pose(face_model, start, landmarks, problem.intrinsics, renderer.camera)
        seconds["pose"], clock = time.perf_counter() - clock, time.perf_counter()
        posed = replace(start, angles=angles, translation=translation)
        coefficients = fit_landmarks(face_model, problem, posed, contour, settings.landmark_rounds)
        seconds["landmarks"], clock = time.perf_counter() - clock, time.perf_counter()
    small = _Pictures.shrunk(image, skin, intrinsics, settings.photometric_size)
    if renderer.lambertian:
        coefficients = _fit_colors(renderer, problem, small, coefficients, settings)
    if settings.photometric_iterations:
        plain = FaceRenderer(face_model, small.size, camera=renderer.camera).to(image.device)
        coefficients, problem = fit_lids(
            plain, problem, small.image, small.skin, small.scale, coefficients, settings.photometric_noise
        )
    coefficients, history = _fit_pixels(renderer, problem, contour, small, coefficients, settings)
    projected, vertices = project_landmarks(renderer, coefficients, intrinsics, contour)
    seconds["photometric"] = time.perf_counter() - clock
    return FitResult(coefficients, projected, vertices, history, seconds)


def _check(
    face_model: LinearModel,
    image: Tensor,
    landmarks: Tensor,
    skin: Tensor,
    intrinsics: Tensor,
    initial: Coefficients | None,
) -> None:
    batch, _, height, width = image.shape
    sizes = {
        "image": (image, (batch, 3, height, width)),
        "landmarks": (landmarks, (batch, 68, 2)),
        "skin": (skin, (batch, 1, height, width)),
        "intrinsics": (intrinsics, (batch, 3, 3)),
    }
    if initial is not None:
        layout = face_model.layout()
        named = initial.named()
        sizes |= {f"initial {name}": (named[name], (batch, size)) for name, size in layout.sizes.items()}
    for name, (tensor, expected) in sizes.items():
        if tuple(tensor.shape) != expected:
            raise UserError(f"cannot fit: {name} has shape {tuple(tensor.shape)}, expected {expected}")
        if not torch.isfinite(tensor).all():
            raise UserError(f"cannot fit: {name} holds values that are not finite: mend or remove that picture")
    extent = landmarks.amax(dim=1) - landmarks.amin(dim=1)
    if batch and extent.min() < 1:
        raise UserError(
            "cannot fit: the landmarks of a face span less than one pixel: give them in pixels of the picture"
        )


def _prior_deviation(face_model: LinearModel, settings: FitSettings, regressed: Tensor | None) -> Tensor:
    """(I + E,): the settings', or less where a regressor is known to be nearer to the truth."""
    identity = torch.full((face_model.identity_size,), settings.identity_deviation)
    expression = torch.full((face_model.expression_size,), settings.expression_deviation)
    lids = [row for row, name in enumerate(face_model.expression_names) if name.startswith(LIDS)]
    expression[lids] = settings.lid_deviation
    spread = torch.cat([identity, expression])
    return spread if regressed is None else (PRIOR_SHARE * regressed.to(spread)).clamp(LEAST * spread, spread)


def _plausible(start: Coefficients, settings: FitSettings) -> Coefficients:
    """What a regressor says, kept within 2.5 deviations: it may be far off on pictures unlike its training data."""
    limit = 2.5 * settings.expression_deviation
    low, high = settings.expression_bounds or (-limit, limit)
    return replace(
        start,
        identity=start.identity.clamp(-2.5, 2.5),
        expression=start.expression.clamp(low, high),
        albedo=start.albedo.clamp(-2.5, 2.5),
    )


def _shared(coefficients: Coefficients, views: int) -> Coefficients:
    """The same with what a person's views share: the mean of their identity and albedo."""
    if views == 1:
        return coefficients
    means = (
        part.unflatten(0, (-1, views)).mean(dim=1).repeat_interleave(views, dim=0)
        for part in (coefficients.identity, coefficients.albedo)
    )
    return replace(coefficients, **dict(zip(("identity", "albedo"), means, strict=True)))


@dataclass
class _Pictures:
    """The images that the photometric stage sees, and how much smaller they are than the input: `scale` (x, y)."""

    image: Tensor
    skin: Tensor
    intrinsics: Tensor
    scale: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]

    @classmethod
    def shrunk(cls, image: Tensor, skin: Tensor, intrinsics: Tensor, longer_side: int) -> _Pictures:
        height, width = image.shape[-2:]
        factor = min(1.0, longer_side / max(height, width))
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        both = torch.nn.functional.interpolate(torch.cat([image, skin], dim=1), size=size, mode="area")
        scale = size[1] / width, size[0] / height
        return cls(both[:, :3], both[:, 3:], intrinsics * intrinsics.new_tensor([*scale, 1.0]).view(3, 1), scale)


@torch.no_grad()
def _fit_colors(
    renderer: FaceRenderer,
    problem: LandmarkProblem,
    pictures: _Pictures,
    coefficients: Coefficients,
    settings: FitSettings,
    rounds: int = 3,
) -> Coefficients:
    """Illumination and albedo in turn, each a robust ridge regression in closed form, the geometry as it is."""
    rendering = renderer(coefficients, pictures.intrinsics, pictures.size)
    colors, weight = _sample_vertices(rendering, pictures)
    normals = rendering.vertex_normals
    model = renderer.face_model
    assert isinstance(model, LinearModel)
    # Squared errors that pull as hard as the photometric term's absolute ones do at a typical error.
    precision = 1 / (2 * TYPICAL_COLOR_ERROR * settings.photometric_noise)
    for _ in range(rounds):
        albedo = model.albedo(coefficients.albedo)
        shaded = albedo * irradiance(normals, coefficients.illumination)
        robust = _robust(weight, colors - shaded)
        coefficients = replace(
            coefficients, illumination=_solve_illumination(colors, robust, albedo, normals, precision)
        )
        light = irradiance(normals, coefficients.illumination)
        robust = _robust(weight, colors - albedo * light)
        left = colors - albedo * light
        gamma = _solve_albedo(left, robust, light, model, coefficients.albedo, problem.mean.albedo, precision)
        coefficients = _shared(replace(coefficients, albedo=gamma), problem.views)
    return coefficients


def fit_illumination(rendering: Rendering, image: Tensor, skin_vertices: Tensor, precision: float = 1e4) -> Tensor:
    """(B, 27) the light of B faces whose shape, pose and albedo are known, a robust ridge regression.

    Args:
        rendering: of the faces in pictures as large as `image`.
        image: (B, 3, H, W) sRGB in [0, 1].
        skin_vertices: (N,) the vertices that are skin; all others are passed over.
        precision: of a typical colour error against the prior, ambient white light.
    """
    pictures = _Pictures(image, torch.ones_like(image[:, :1]), image.new_empty(0), (1.0, 1.0))
    colors, weight = _sample_vertices(rendering, pictures)
    skin = torch.zeros_like(weight[0])
    skin[skin_vertices] = 1
    albedo, normals = rendering.vertex_albedo, rendering.vertex_normals
    light = colors.new_zeros((len(image), 27))
    for _ in range(2):
        robust = _robust(weight * skin, colors - albedo * irradiance(normals, light))
        light = _solve_illumination(colors, robust, albedo, normals, precision)
    return light


def _robust(weight: Tensor, residual: Tensor) -> Tensor:
    """(B, V) weights that add up to 1 and let hair, glasses and highlights go (Geman-McClure)."""
    distance = residual.norm(dim=-1)
    # Scale by the median residual: at first all residuals are large.
    median = torch.where(weight > 0, distance, torch.nan).nanmedian(dim=1, keepdim=True).values
    scale = median.nan_to_num(0.0).clamp_min(2 * TYPICAL_COLOR_ERROR)
    weight = weight / (1 + (distance / scale) ** 2) ** 2
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-6)


def _sample_vertices(rendering: Rendering, pictures: _Pictures) -> tuple[Tensor, Tensor]:
    """The picture's colour at every vertex (B, V, 3), and how far to believe it (B, V): visible, facing, skin."""
    height, width = pictures.size
    points = rendering.vertices_image
    grid = points[..., :2] / points.new_tensor([width, height]) * 2 - 1
    stack = torch.cat([pictures.image, pictures.skin, rendering.depth], dim=1)
    sampled = torch.nn.functional.grid_sample(stack, grid.unsqueeze(2), align_corners=False).squeeze(-1).transpose(1, 2)
    near = (sampled[..., 4] - points[..., 2]).abs() < 0.05
    facing = rendering.vertex_normals[..., 2].clamp_min(0)
    return sampled[..., :3], sampled[..., 3] * near * facing


def _solve_illumination(colors: Tensor, weight: Tensor, albedo: Tensor, normals: Tensor, precision: float) -> Tensor:
    """(B, 27): least squares of seen = albedo * irradiance, with a ridge towards ambient, preferably white light."""
    basis = spherical_harmonics_basis(normals)
    ambient = albedo * (AMBIENT * basis[..., :1])
    normal = torch.einsum("bv,bvc,bvi,bvj->bcij", weight, albedo**2, basis, basis)
    right = torch.einsum("bv,bvc,bvi->bci", weight, albedo * (colors - ambient), basis).flatten(1)
    system = torch.stack([torch.block_diag(*per_face) for per_face in normal])
    eye = torch.eye(9, device=colors.device)
    chroma = torch.eye(3, device=colors.device) - 1 / 3
    ridge = 0.05 * torch.kron(torch.eye(3, device=colors.device), eye) + 2.0 * torch.kron(chroma, eye)
    return torch.linalg.solve(system + ridge / precision, right)


def _solve_albedo(
    left: Tensor, weight: Tensor, light: Tensor, model: LinearModel, gamma: Tensor, mean: Tensor, precision: float
) -> Tensor:
    """(B, A): least squares of what `gamma` leaves unexplained, linear in its change, with the prior N(mean, 1)."""
    solutions = []
    prior = torch.eye(model.albedo_size, device=left.device) / precision
    for face in range(len(left)):
        design = (model.albedo_slopes(gamma[face]) * light[face].unsqueeze(-1)).flatten(0, 1)
        weighted = design * weight[face].repeat_interleave(3).unsqueeze(-1)
        right = weighted.T @ (left[face].flatten() + design @ gamma[face]) + prior @ mean[face]
        solutions.append(torch.linalg.solve(weighted.T @ design + prior, right))
    return torch.stack(solutions)


def _fit_pixels(
    renderer: FaceRenderer,
    problem: LandmarkProblem,
    contour: ContourTable | None,
    pictures: _Pictures,
    start: Coefficients,
    settings: FitSettings,
) -> tuple[Coefficients, dict[str, list[float]]]:
    """Everything together, pixels + landmarks + prior, by Adam; keeps each face's best iterate."""
    model = renderer.face_model
    layout = model.layout()
    rate = settings.learning_rate
    rates = {"identity": rate, "expression": rate * settings.expression_deviation, "albedo": rate}
    rates |= {"angles": rate / 10, "illumination": rate / 3, "translation": rate / 10}
    low, high = problem.bounds(list(layout.sizes.values()), [list(layout.sizes).index("expression")])
    vector = layout.join(start).clamp(low, high)
    steps = torch.cat([vector.new_full((size,), rates[name]) for name, size in layout.sizes.items()])
    # Adam is invariant to scale, so one parameter in units of its own step replaces six groups.
    scaled = (vector / steps).requires_grad_()
    total = settings.photometric_iterations
    optimizer = Adam(scaled, total)
    history: dict[str, list[float]] = {"energy": [], "photometric": [], "landmark": []}
    best, best_energy = vector.clone(), vector.new_full((len(vector),), torch.inf)
    for iteration in range(total + 1):
        vector = (scaled * steps).clamp(low, high)
        coefficients = _shared(replace(layout.split(vector), extra=start.extra), problem.views)
        rendering = renderer(coefficients, pictures.intrinsics, pictures.size)
        photometric = render_loss(rendering.image, pictures.image, rendering.mask, pictures.skin)
        places = rendering.vertices_image
        rows = visible_landmarks(contour, model.landmark_indices, places.detach(), coefficients.angles)
        points = gather_vertices(places, rows)[..., :2] / vector.new_tensor(pictures.scale)
        energy = photometric / settings.photometric_noise + problem.energy(points, coefficients)
        with torch.no_grad():
            # A person's views are kept or left together.
            whole = energy.unflatten(0, (-1, problem.views)).sum(dim=1).repeat_interleave(problem.views)
            better = whole < best_energy
            best = torch.where(better[:, None], vector, best)
            best_energy = torch.where(better, whole, best_energy)
            distance = problem.distance(points)
            for name, value in {"energy": energy, "photometric": photometric, "landmark": distance}.items():
                history[name].append(float(value.mean()))
        if iteration < total:
            (gradient,) = torch.autograd.grad(energy.sum(), scaled)
            optimizer.step(gradient)
            with torch.no_grad():
                scaled.clamp_(low / steps, high / steps)
    return _shared(replace(layout.split(best).detach(), extra=start.extra), problem.views), history
