"""Compares shapes with people's own scans: the mean face, the fit, networks with and without it, several views."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.spatial.transform import Rotation
from torch import Tensor

from datamodules.datasets.own_scans import OwnPerson, read_people, read_points
from datamodules.datasets.scans import Scan, ScanSubject, read_scan
from datamodules.preparation.landmarks import DetectedFace
from experiments.commands.evaluate.bootstrap import people_interval, ratio_interval
from experiments.commands.evaluate.error_maps import SIZE, error_map
from experiments.commands.evaluate.pictures import cumulative_curve, labelled
from experiments.commands.evaluate.predictions import predicted_face
from experiments.commands.evaluate.results import SHOWN, Evaluation, Request
from experiments.commands.evaluate.scan_benchmark import ALL, ScanReader, tell_left_out
from experiments.commands.reconstruct.face import AlignedFace, photo_pose
from experiments.commands.reconstruct.photo import Photo, open_photo
from experiments.commands.reconstruct.pipeline import ReconstructionPipeline
from experiments.commands.reconstruct.results import progress_bar
from experiments.fitting.landmark_fitting import rigid_pose
from experiments.fitting.photometric_fitting import FitResult, project_landmarks
from experiments.training.shipped_model import load_default_model
from lightning_modules.base import FaceModule
from losses.metrics import PooledDistances, landmark_nme, shape_errors
from losses.metrics.nonrigid import Correspondence, correspondence_rmse, smooth_registration
from losses.metrics.scan import NOW_LANDMARKS, ScannedFace, landmark_rows, now_errors, now_region
from losses.metrics.similarity import umeyama
from losses.metrics.surface import TriangleMesh
from renderers.face_models.linear import LinearModel
from renderers.face_models.load import load_face_model
from renderers.face_renderer import mean_coefficients
from renderers.io.errors import UserError, reason
from renderers.jaw_contour import contour_table
from renderers.units import MILLIMETRES

MEAN, FIT, TOGETHER, REGRESSED, REFINED = "mean face", "fit", "fit together", "network", "network, fit"
SHIPPED, SHIPPED_REFINED = "shipped network", "shipped network, fit"
COLUMNS = {
    "bent": "nonrigid_mm",
    "shape": "shape_rmse_mm",
    "NME": "nme",
    "pose": "pose_error_deg",
    "s": "seconds",
}  # of the printed table, behind those of NoW
TOUCHING = 2.0  # millimetres; the part of a scan within this distance of the bent mesh is measured
Solve = Callable[[AlignedFace], FitResult]


@dataclass(frozen=True)
class View:
    """One photograph that shows its person.

    Attributes:
        image: its file.
        face: as the fitter sees it.
        target: (1, 68, 2) or (1, 51, 2) points with which its landmarks are compared, pixels of the crop.
    """

    image: Path
    face: AlignedFace
    target: Tensor


@dataclass(frozen=True)
class Truth:
    """A person's scan, prepared for comparison.

    Attributes:
        scan: in millimetres.
        measured: the vertices of the scan near which the mesh of `on_scan` lies. The others have no counterpart on a
            face model without ears and neck, and would distort every registration.
        on_scan: the model's mesh, bent onto the scan.
        region: (V,) bool, the model's vertices that count in the non-rigid error.
    """

    scan: ScannedFace
    measured: ScannedFace
    on_scan: Correspondence
    region: np.ndarray


@dataclass
class Found:
    """The figures of one row of the table.

    Attributes:
        names: of the subjects, which are photographs or people.
        people: the person of each subject.
        figures: metric -> one value for each subject.
        pooled: distances of all subjects.
    """

    names: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    pooled: PooledDistances = field(default_factory=PooledDistances)

    def by_person(self, metric: str) -> dict[str, list[float]]:
        """Person -> values."""
        sorted_out: dict[str, list[float]] = {}
        for person, value in zip(self.people, self.figures[metric], strict=True):
            sorted_out.setdefault(person, []).append(value)
        return sorted_out


class Measurer:
    """Measures people one by one, and collects the figures of every row.

    Args:
        face_model: of all predictions.
        module: a checkpoint's; None without one.
        people: all people. Figures that cannot be measured for one of them are left out for all.
    """

    def __init__(self, face_model: LinearModel, module: FaceModule | None, people: Sequence[OwnPerson]) -> None:
        self.face_model = face_model
        shipped = load_default_model(face_model)
        self.fitter = ReconstructionPipeline(face_model, shipped=shipped)  # as `reconstruct` has it
        self.solvers: dict[str, Solve] = {MEAN: self._mean, FIT: ReconstructionPipeline(face_model).solve}
        if shipped is not None:
            self.solvers[SHIPPED] = ReconstructionPipeline(face_model, refine=False, shipped=shipped).solve
            self.solvers[SHIPPED_REFINED] = self.fitter.solve
        if module is not None:
            self.solvers[REGRESSED] = ReconstructionPipeline(face_model, module, refine=False).solve
            self.solvers[REFINED] = ReconstructionPipeline(face_model, module).solve
        scanned = [person for person in people if person.scan is not None]
        self.posed = all(set(person.images) <= set(person.poses) for person in scanned)
        self.same_mesh = all(self._has_our_mesh(read_scan(person.scan)) for person in scanned if person.scan)
        self.scans = ScanReader(self.fitter)
        self.rows: dict[str, Found] = {}
        self.left_out: dict[str, str] = {}
        self.panels: dict[str, list[Tensor]] = {"photograph": []}

    def measure(self, person: OwnPerson) -> None:
        """Measure all rows of one person. Photographs and scans that cannot be read are noted in `left_out`."""
        views = list(self._views(person))
        if not views:
            return
        try:
            truth = self._truth(person) if person.scan is not None else None
        except Exception as error:  # one failing scan must not end the evaluation
            self.left_out[person.name] = reason(error)
            return
        for row, solve in self.solvers.items():
            for view in views:
                clock = time.perf_counter()
                result = solve(view.face)
                self._count(row, person, truth, [view], result, time.perf_counter() - clock)
                if truth is not None and view is views[0]:
                    self._draw(row, person, truth, view, result)
        if len(views) > 1:
            clock = time.perf_counter()
            result = self.fitter.solve_together([view.face for view in views])
            self._count(TOGETHER, person, truth, views, result, time.perf_counter() - clock)
            if truth is not None:
                self._draw(TOGETHER, person, truth, views[0], result)

    @torch.no_grad()
    def _mean(self, face: AlignedFace) -> FitResult:
        """The mean face, in the pose that the landmarks give."""
        start = mean_coefficients(self.face_model, 1)
        start.angles, start.translation = rigid_pose(self.face_model, start, face.landmarks, face.intrinsics)
        contour = contour_table(self.face_model) if self.fitter.detector.contour else None
        return FitResult(start, *project_landmarks(self.fitter.renderer, start, face.intrinsics, contour))

    def _views(self, person: OwnPerson) -> Iterator[View]:
        for image in person.images:
            try:
                photo = open_photo(image)
                marked = read_points(person.points[image]) if image in person.points else None
                face = self.fitter.aligned(photo, self._detected(photo, marked))
                target = face.landmarks
                if marked is not None:
                    target = torch.from_numpy(face.alignment.to_crop(marked)).float()[None]
            except Exception as error:  # one failing photograph must not end the evaluation
                self.left_out[f"{person.name}/{image.name}"] = reason(error)
            else:
                yield View(image, face, target)

    def _detected(self, photo: Photo, marked: np.ndarray | None) -> DetectedFace:
        """The face nearest to the marked points; without these the largest face, if possible one of sure landmarks."""
        found = self.fitter.detector.detect(photo.pixels)
        if not found:
            raise UserError("no face found")
        if marked is None:
            return max(found, key=lambda face: (face.doubt is None, face.area))
        middle = marked.mean(axis=0)
        return min(found, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)))

    def _has_our_mesh(self, scan: Scan) -> bool:
        faces = self.face_model.faces.cpu().numpy()
        return len(scan.vertices) == self.face_model.vertex_count and np.array_equal(scan.faces, faces)

    def _neutral(self, identity: Tensor) -> Tensor:
        """(1, V, 3) decimetres"""
        return self.face_model.shape(identity, identity.new_zeros(1, self.face_model.expression_size))

    def _truth(self, person: OwnPerson) -> Truth:
        scan = self.scans.read(ScanSubject(person.name, person.images, person.scan, person.scan_landmarks, ALL))
        mean = predicted_face(self.face_model, self._neutral(torch.zeros(1, self.face_model.identity_size)))
        known = landmark_rows(len(scan.landmarks))
        start = umeyama(mean.landmarks[list(known)], scan.landmarks).apply(mean.vertices)
        on_scan = smooth_registration(start, mean.faces, TriangleMesh(scan.vertices, scan.faces))
        nearest = TriangleMesh(on_scan.vertices, mean.faces).nearest(scan.vertices)
        ours = ~nearest.border & (np.linalg.norm(nearest.places - scan.vertices, axis=1) < TOUCHING)
        measured = ScannedFace(scan.vertices[ours], scan.faces[:0], scan.landmarks)
        centre, radius = now_region(scan.landmarks[[known.index(point) for point in NOW_LANDMARKS]])
        region = ((on_scan.vertices - centre) ** 2).sum(axis=1) <= radius**2
        region[mean.hidden] = False
        return Truth(scan, measured, on_scan, region)

    def _count(
        self, row: str, person: OwnPerson, truth: Truth | None, views: Sequence[View], result: FitResult, seconds: float
    ) -> None:
        """Add the figures of one answer to its row. The answer may be of several photographs."""
        found = self.rows.setdefault(row if truth is not None else f"{row}, no scan", Found())
        distances = [
            landmark_nme(marks[None, list(landmark_rows(view.target.shape[1]))], view.target)
            for marks, view in zip(result.landmarks, views, strict=True)
        ]
        figures = {
            "nme": float(torch.cat(distances).mean()),
            "seconds": seconds / len(views),
        }
        if truth is not None:
            neutral = self._neutral(result.coefficients.identity[:1])
            face = predicted_face(self.face_model, neutral)
            errors = now_errors(face, truth.measured)
            found.pooled.update(torch.from_numpy(errors.distances))
            figures["median_mm"], figures["mean_mm"] = errors.median, errors.mean
            figures["nonrigid_mm"] = correspondence_rmse(face.vertices, truth.on_scan, truth.region)
            if self.same_mesh:
                aligned, growth = shape_errors(neutral, torch.from_numpy(truth.scan.vertices)[None] / MILLIMETRES)
                figures["shape_rmse_mm"], figures["size_error_percent"] = float(aligned), abs(float(growth))
            if self.posed:
                turns = [
                    pose_error(
                        photo_pose(result.coefficients.index(slice(number, number + 1)), view.face.alignment),
                        errors.placed.rotation,
                        person.poses[view.image],
                    )
                    for number, view in enumerate(views)
                ]
                figures["pose_error_deg"] = float(np.mean(turns))
        found.names.append(f"{person.name}/{views[0].image.stem}" if len(views) == 1 else person.name)
        found.people.append(person.name)
        for metric, value in figures.items():
            found.figures.setdefault(metric, []).append(value)

    def _draw(self, row: str, person: OwnPerson, truth: Truth, view: View, result: FitResult) -> None:
        """Add a row's error map to the picture, and with the first row's the photograph."""
        shown = self.panels.setdefault(row, [])
        if len(shown) == SHOWN:
            return
        if row == MEAN:
            picture = torch.nn.functional.interpolate(view.face.image, (SIZE, SIZE), mode="bilinear", antialias=True)
            self.panels["photograph"].append(labelled(picture[0], person.name))
        face = predicted_face(self.face_model, self._neutral(result.coefficients.identity[:1]))
        errors = now_errors(face, truth.measured)
        shown.append(labelled(error_map(face, truth.scan, errors), f"{errors.median:.2f} mm"))


def pose_error(degrees: Mapping[str, float], placed: np.ndarray, true: tuple[float, float, float]) -> float:
    """Degrees between the predicted and the true rotation of a scan in its photograph.

    `placed` (3, 3) turns the prediction's frame into the scan's, so that the model's own definition of frontal does not
    matter.
    """
    turn = Rotation.from_euler("xyz", [degrees[name] for name in ("pitch", "yaw", "roll")], degrees=True)
    between = turn * Rotation.from_matrix(placed).inv() * Rotation.from_euler("xyz", true, degrees=True).inv()
    return float(np.degrees(between.magnitude()))


def evaluate(module: FaceModule | None, request: Request, tell: Callable[[str], None]) -> Evaluation:
    """Measure the fit, and `module` if there is one; see `experiments.commands.evaluate.command.Suite`.

    Raises:
        UserError: no folder was given or it holds no people, or none of them could be measured.
    """
    if request.data is None:
        raise UserError("this suite needs --data FOLDER with PERSON/*.jpg and PERSON/scan.obj, scan.ply or *.pts")
    people = read_people(request.data)[: request.subjects]
    face_model = load_face_model("default") if module is None else module.face_model
    if not isinstance(face_model, LinearModel):
        raise UserError(
            f"face model {face_model.name} is not linear, and the fit of this suite needs that: "
            "give a checkpoint of a linear one"
        )
    if module is not None:
        module.eval()
    measurer = Measurer(face_model, module, people)
    with progress_bar(len(people)) as (bar, task):
        for person in people:
            bar.update(task, description=person.name)
            measurer.measure(person)
            bar.advance(task)
    tell_left_out(measurer.left_out, tell)
    if not measurer.rows:
        raise UserError(f"nothing could be measured: {next(iter(measurer.left_out.values()))}")
    rows = measurer.rows
    curves = [
        cumulative_curve(row, "median of a subject, mm", found.figures["median_mm"])
        for row, found in rows.items()
        if "median_mm" in found.figures
    ]
    return Evaluation(
        "scans",
        {row: found.figures for row, found in rows.items()},
        {name: torch.stack(pictures) for name, pictures in measurer.panels.items() if pictures},
        {row: found.names for row, found in rows.items()},
        {row: pooled_figures(found, rows.get(MEAN), request.seed) for row, found in rows.items()},
        curves,
        measurer.left_out,
    )


def pooled_figures(found: Found, baseline: Found | None, seed: int) -> dict[str, float]:
    """NoW's median, mean and standard deviation over all distances of a row, and intervals over people."""
    if baseline is None or "median_mm" not in found.figures:
        return {}
    figures = {f"pooled_{name}_mm": float(value) for name, value in found.pooled.compute().items()}
    medians = found.by_person("median_mm")
    intervals = {
        "people_median_mm": people_interval(medians, seed),
        "share_of_mean_face": ratio_interval(medians, baseline.by_person("median_mm"), seed),
    }
    for name, interval in intervals.items():
        figures |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return figures


def table(evaluation: Evaluation) -> Table:
    """See `experiments.commands.evaluate.command.Suite`."""
    view = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption_justify="left",
        title=f"Neutral shapes against scans, {evaluation.subjects} photographs, mm",
        caption="median, mean, std: of the distances from scan to mesh as NoW measures them, pooled; ratio: the "
        "people's medians over the mean face's, 95 % interval by bootstrap over people; bent: RMSE of corresponding "
        "vertices after a smooth registration; shape: RMSE of equal meshes after a similarity; NME: against the marked "
        "points or the detector's, %; pose: degrees; s: seconds for a face without detection.",
    )  # fmt: skip
    view.add_column("", no_wrap=True)
    for column in ("median", "mean", "std", "ratio", *COLUMNS):
        view.add_column(column, justify="right", no_wrap=True)
    for row, metrics in evaluation.summary().items():
        pooled = evaluation.pooled.get(row, {})
        cells = [f"{pooled[f'pooled_{name}_mm']:.2f}" if pooled else "" for name in ("median", "mean", "std")]
        share = [pooled[f"share_of_mean_face_{end}"] for end in ("low", "high")] if pooled else []
        cells.append("-".join(f"{end:.2f}" for end in share))
        cells += [f"{metrics[metric]['mean']:.2f}" if metric in metrics else "" for metric in COLUMNS.values()]
        view.add_row(row, *cells)
    return view
