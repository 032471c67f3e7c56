"""`report.html` and `index.html`: self-contained pages that open offline, filled from templates beside this file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from experiments.commands.reconstruct.detail import FaceDetail
from experiments.commands.reconstruct.export import clay, draw_on, picture_of, unlit
from experiments.commands.reconstruct.face import CROP_SIZE, ReconstructedFace
from experiments.commands.reconstruct.photo import Photo

PICTURE_SIZE = 480
PHOTO_SIDE = 1400
THUMBNAIL_SIDE = 480


def report_page(
    photo: Photo,
    overlay: np.ndarray,
    reconstructed: Sequence[ReconstructedFace],
    expression_names: Sequence[str],
    about: Mapping[str, str],
) -> str:
    """The report of one photograph.

    Args:
        photo: the photograph.
        overlay: (H, W, 3) uint8, all faces drawn on it.
        reconstructed: its faces.
        expression_names: of the face model's expression coefficients; empty where they have none.
        about: label -> text, what made this result.
    """
    errors = [face.landmark_nme for face in reconstructed]
    chips = {
        "faces" if len(errors) > 1 else "face": str(len(errors)),
        "landmark NME": f"{np.mean(errors):.2f} %",
        "landmarks": ", ".join(dict.fromkeys(face.detected.confidence for face in reconstructed)),
        "seconds": f"{sum(sum(face.seconds.values()) for face in reconstructed):.0f}",
    }
    height, width = photo.pixels.shape[:2]
    folders = [face_folder(face.number, len(reconstructed)) for face in reconstructed]
    data = {
        "width": width,
        "height": height,
        "names": {"expression": list(expression_names)},
        "faces": [
            _face_data(photo, face, folder, expression_names)
            for face, folder in zip(reconstructed, folders, strict=True)
        ],
    }
    body = _fill(
        "report.html",
        photo=_encode(_shrunk(photo.pixels, PHOTO_SIDE)),
        overlay=_encode(_shrunk(overlay, PHOTO_SIDE)),
        about="".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in about.items()),
        viewer=_template("viewer.js"),
        script=_template("report.js"),
        # "</script>" in a file's name must not end the element.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )
    return _page(photo.name, chips, body, "; script-src 'unsafe-inline'")


def face_folder(number: int, count: int) -> str:
    """Where the meshes of face `number` of `count` lie, relative to the report: beside it, or in `face_N/`.

    Of a sequence's frames, one may show none but face 2.
    """
    return "" if number == count == 1 else f"face_{number}/"


def index_page(
    title: str,
    done: Sequence[tuple[str, str, str]],
    skipped: Mapping[str, str],
    passed_over: Mapping[str, int],
    pages: Sequence[tuple[str, bool]] = (),
    total: int | None = None,
) -> str:
    """The page that links all reports of a folder.

    Args:
        title: the folder's name.
        done: for each photograph its report's folder, a line about it, and its thumbnail as a data URI.
        skipped: file name -> reason.
        passed_over: what else the folder holds -> how many.
        pages: all pages of the folder, and whether each is another one than this.
        total: photographs on all pages; those of `done` where absent.
    """
    cards = "\n".join(
        f'<a class="card" href="{quote(folder)}/report.html"><img src="{thumbnail}" alt="">'
        f"<figcaption><b>{html.escape(folder)}</b> {html.escape(line)}</figcaption></a>"
        for folder, line, thumbnail in done
    )
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in skipped.items())
    table = f'<section class="card skipped"><div class="head"><h2>Skipped</h2></div><table>{rows}</table></section>'
    links = " ".join(
        f'<a href="{quote(name)}">{number}</a>' if is_other else f"<b>{number}</b>"
        for number, (name, is_other) in enumerate(pages, start=1)
    )
    chips = {"reconstructed": str(len(done) if total is None else total), "skipped": str(len(skipped))}
    chips |= {f"{kind}, not looked at": str(count) for kind, count in passed_over.items()}
    return _page(title, chips, _fill("index.html", cards=cards, pages=links, skipped=table if skipped else ""))


def thumbnail(picture: np.ndarray) -> str:
    """A small JPEG as a data URI."""
    return _encode(_shrunk(picture, THUMBNAIL_SIDE))


def data_uri(jpeg: bytes) -> str:
    """A JPEG file's content for a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _face_data(photo: Photo, face: ReconstructedFace, folder: str, expression_names: Sequence[str]) -> dict[str, Any]:
    mesh, rendering = face.mesh, face.rendering
    crop = face.alignment.crop(photo.pixels)
    drawn = face.alignment.crop(draw_on(photo.pixels, rendering, face.alignment))
    points = np.concatenate([face.detected.landmarks, face.landmarks])
    return {
        "number": face.number,
        "folder": folder,
        "box": face.detected.box.round(1).tolist(),
        "size": float(np.ptp(points, axis=0).max()),
        "detected": face.detected.landmarks.round(2).tolist(),
        "projected": face.landmarks.round(2).tolist(),
        "figures": _figures(face, expression_names),
        "coefficients": {
            name: values[0].double().numpy().round(4).tolist()
            for name, values in face.coefficients.named().items()
            if name not in ("angles", "translation")
        },
        "seconds": {stage: round(seconds, 2) for stage, seconds in face.seconds.items()},
        "history": {name: [round(value, 5) for value in values] for name, values in face.history.items()},
        "pictures": {
            "crop": _encode(Image.fromarray(crop)),
            "render": _encode(Image.fromarray(drawn)),
            "shape": _encode(picture_of(rendering, clay, PICTURE_SIZE)),
            "albedo": _encode(picture_of(rendering, unlit, PICTURE_SIZE)),
        },
        "detail": None if face.detail is None else _encode(Image.fromarray(face.detail.panels)),
        "mesh": {
            "positions": _pack(mesh.vertices, "<f4"),
            "uv": _pack(mesh.uv, "<f4"),
            "indices": _pack(mesh.faces, "<u4"),
            "texture": _encode(Image.fromarray(mesh.texture)),
        },
    }


def _figures(face: ReconstructedFace, expression_names: Sequence[str]) -> list[tuple[str, str]]:
    left, top, right, bottom = face.detected.box
    size = np.ptp(face.mesh.vertices, axis=0)
    weights = face.coefficients.expression[0].tolist()
    strongest = sorted(zip(weights, expression_names, strict=False), reverse=True)[:3]
    return [
        ("Landmark NME", f"{face.landmark_nme:.2f} %"),
        ("Landmarks", face.detected.confidence + ("" if face.detected.doubt is None else f": {face.detected.doubt}")),
        *((name.capitalize(), f"{value:+.1f}°") for name, value in face.pose_degrees.items()),
        *[("Expression", ", ".join(f"{name} {weight:.2f}" for weight, name in strongest))][: len(strongest)],
        ("Box", f"{right - left:.0f} x {bottom - top:.0f} px at {left:.0f}, {top:.0f}"),
        ("Face width x height", f"{size[0]:.0f} x {size[1]:.0f} mm"),
        ("Vertices, triangles", f"{len(face.mesh.vertices):,}, {len(face.mesh.faces):,}"),
        *_detail_figures(face.detail),
        ("Crop", f"{CROP_SIZE} px, {CROP_SIZE / face.alignment.size * face.alignment.scale:.2f} x the photo"),
        ("Time", f"{sum(face.seconds.values()):.1f} s"),
    ]


def _detail_figures(detail: FaceDetail | None) -> list[tuple[str, str]]:
    """What a paper tells in numbers."""
    if detail is None:
        return []
    texts = {name: ", ".join(f"{value:.1f}" for value in values) for name, values in detail.numbers.items()}
    if detail.displacement is not None:
        texts["largest displacement_mm"] = f"{np.abs(detail.displacement).max():.2f}"
    return [
        (name.removesuffix("_mm").replace("_", " ").capitalize(), text + (" mm" if name.endswith("_mm") else ""))
        for name, text in texts.items()
    ]


def _chips(values: Mapping[str, str]) -> str:
    return "".join(f'<span class="chip"><b>{html.escape(v)}</b> {html.escape(k)}</span>' for k, v in values.items())


def _page(title: str, chips: Mapping[str, str], body: str, policy: str = "") -> str:
    """A whole page; `policy` is what it may do beside showing its own pictures."""
    style = _template("report.css")
    return _fill("page.html", title=html.escape(title), chips=_chips(chips), body=body, policy=policy, style=style)


def _template(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _fill(name: str, **values: str) -> str:
    """Put values into a template's {{places}}, each once, whatever braces the values themselves hold."""
    parts = _template(name).split("{{")
    filled = [parts[0]]
    for part in parts[1:]:
        key, rest = part.split("}}", 1)
        filled += [values[key], rest]
    return "".join(filled)


def _pack(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array.astype(kind)).tobytes()).decode()


def _shrunk(pixels: np.ndarray, longest: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture


def _encode(picture: Image.Image) -> str:
    """A data URI: JPEG, or WebP where there is transparency."""
    kind, options = ("jpeg", {"quality": 88}) if picture.mode == "RGB" else ("webp", {"quality": 90, "method": 4})
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
