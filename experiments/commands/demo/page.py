"""The page itself, made with Gradio."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import gradio as gr
import numpy as np

from experiments.commands.demo.relighting import Light, moves_of
from experiments.commands.demo.studio import Result, ShownFace, Studio
from renderers.io.errors import UserError

TITLE = "monoface"
ABOUT = (
    "# monoface\n"
    "A photograph becomes a textured 3D face. Several photographs of one person share one shape. This page runs on "
    "your machine alone: it reaches no network, counts nobody, and deletes everything when it is stopped. Reconstruct "
    "other people only with their consent."
)
BUTTON = "Make the face"
INVITATION = "Drop a photograph above, or take one with the camera. It takes some seconds."
LARGEST_UPLOAD = "64mb"
FIRST_PORT = 7860  # Gradio's own
FARTHEST_RIGHT, FARTHEST_UP = 90.0, 60.0  # degrees of the lamp
LEAST_WIDTH = 300  # pixels: two views stand side by side where there is room, on a phone one above the other
FRONTAL = (90, 90, None)  # degrees about the mesh, and down from above it: else it is seen from above
FONTS = ("Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")  # of the browser's machine: none is fetched
STYLE = """
footer {display: none !important}
.gradio-container {max-width: 1180px !important; margin: auto}
#photographs .grid-container {grid-template-columns: repeat(auto-fill, minmax(90px, 130px)) !important}
"""


def show(studio: Studio, address: str, port: int | None) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: the port is taken.
    """
    page = build(studio)
    try:
        url = launch(page, studio, address, port, has_screen())
    except OSError as error:
        raise UserError(f"{address}:{port or FIRST_PORT} is taken; choose another --port") from error
    print(f"open {url} in a browser; it answers this machine alone, and Ctrl-C ends it", flush=True)
    page.block_thread()


def has_screen() -> bool:
    """Whether a browser can open a window here."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def launch(page: gr.Blocks, studio: Studio, address: str, port: int | None, in_browser: bool) -> str:
    """Start serving in the background; the page's address.

    Raises:
        OSError: the port is taken.
    """
    _, url, _ = page.launch(
        server_name=address,
        server_port=port,
        share=False,
        inbrowser=in_browser,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        allowed_paths=[str(studio.folder)],
        max_file_size=LARGEST_UPLOAD,
        enable_monitoring=False,
        ssr_mode=False,
        theme=gr.themes.Default(font=FONTS, font_mono=("Consolas", "monospace")),
        css=STYLE,
    )
    return str(url)


def build(studio: Studio) -> gr.Blocks:
    """The page, not yet served."""
    moves = moves_of(studio.pipeline.face_model)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        result, face = gr.State(), gr.State()
        gr.Markdown(ABOUT)
        photographs = gr.Gallery(
            label="Photographs: one, or several of one person", interactive=True, type="filepath", height=220,
            sources=["upload", "webcam", "clipboard"], file_types=["image"], columns=4, fit_columns=False,
            object_fit="contain", elem_id="photographs",
        )  # fmt: skip
        button = gr.Button(BUTTON, variant="primary", elem_id="make")
        status = gr.Markdown(INVITATION, min_height=72, padding=True, elem_id="status")
        choice = gr.Radio(label="Which face", visible=False, elem_id="choice")
        views = _views()
        with gr.Row():
            with gr.Column(min_width=LEAST_WIDTH):
                sliders = _sliders([move.label for move in moves], [move.limit for move in moves])
            relit = gr.Image(
                label="In other light", format="jpeg", min_width=LEAST_WIDTH, buttons=["download"], elem_id="relit"
            )
        downloads = gr.File(label="Downloads", interactive=False, file_count="multiple", elem_id="downloads")
        shown = [face, *views, relit, downloads, *sliders]
        choose = _chooser(len(sliders))
        button.click(
            _maker(studio), photographs, [result, status, choice],
            show_progress="minimal", show_progress_on=status, api_visibility="private",
        ).then(choose, [result, choice], shown, api_visibility="private")  # fmt: skip
        choice.input(choose, [result, choice], shown, api_visibility="private")
        # While a picture is drawn the sliders go on; the last place counts.
        gr.on(
            [slider.input for slider in sliders], draw, [face, *sliders], relit,
            trigger_mode="always_last", show_progress="hidden", api_visibility="private",
        )  # fmt: skip
    return page


def _views() -> list[gr.components.Component]:
    with gr.Row():
        photo = gr.Image(label="Photograph", buttons=["fullscreen"], min_width=LEAST_WIDTH, elem_id="photo")
        overlay = gr.Image(label="The face over it", buttons=["fullscreen"], min_width=LEAST_WIDTH, elem_id="overlay")
    with gr.Row():
        shape = gr.Image(label="Its shape", buttons=["fullscreen"], min_width=LEAST_WIDTH, elem_id="shape")
        mesh = gr.Model3D(
            label="Its mesh: drag to turn it", height=480, min_width=LEAST_WIDTH, elem_id="mesh",
            camera_position=FRONTAL,
        )  # fmt: skip
    return [photo, overlay, shape, mesh]


def _sliders(labels: Sequence[str], limits: Sequence[float]) -> list[gr.Slider]:
    """The light's three, then one for each expression; 0 is as in the photograph."""
    gr.Markdown("**Light and expression.** 0 leaves all as it is in the photograph.")
    lights = [
        gr.Slider(0, 1, 0, step=0.05, label="A lamp instead of the photograph's light", elem_id="lamp"),
        gr.Slider(
            -FARTHEST_RIGHT, FARTHEST_RIGHT, 0, step=5, label="The lamp: left to right, degrees", elem_id="aside"
        ),
        gr.Slider(-FARTHEST_UP, FARTHEST_UP, 0, step=5, label="The lamp: below to above, degrees", elem_id="above"),
    ]
    return lights + [
        gr.Slider(-limit, limit, 0, step=0.05, label=label) for label, limit in zip(labels, limits, strict=True)
    ]


def _maker(studio: Studio) -> Callable[[list[tuple[str, str | None]] | None], Iterator[list[Any]]]:
    def make(pictures: list[tuple[str, str | None]] | None) -> Iterator[list[Any]]:
        """The result, what is said, and the choice of a face; while the work goes on, what is being done."""
        nothing = gr.Radio(choices=[], value=None, visible=False)
        stages: SimpleQueue[str | None] = SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(studio.reconstruct, [Path(path) for path, _ in pictures or []], stages.put)
            work.add_done_callback(lambda done: stages.put(None))
            for stage in iter(stages.get, None):
                yield [None, f"{html.escape(stage)} ...", nothing]
        try:
            result = work.result()
        except UserError as error:
            yield [None, f"**Not done.** {html.escape(str(error))}", nothing]
            return
        labels = [face.label for face in result.faces]
        yield [result, _told(result), gr.Radio(choices=labels, value=labels[0], visible=len(labels) > 1)]

    return make


def _told(result: Result) -> str:
    lines = [f"**{result.message}**", *(f"Look twice: {warning}" for warning in result.warnings)]
    return "\n\n".join(html.escape(line) for line in lines)


def _chooser(sliders: int) -> Callable[[Result | None, str | None], list[Any]]:
    def choose(result: Result | None, label: str | None) -> list[Any]:
        """What is shown of the chosen face, the sliders back at 0; nothing without a face."""
        face = next((face for face in result.faces if face.label == label), None) if result else None
        return [*_shown(face), *[0] * sliders]

    return choose


def _shown(face: ShownFace | None) -> list[Any]:
    if face is None:
        return [None] * 7
    files = [str(path) for path in face.downloads]
    return [face, *face.pictures, files[0], face.painter.draw(), files]


def draw(face: ShownFace | None, *values: float) -> np.ndarray | None:
    """The face as the sliders say: the light's three values, then the expressions'."""
    return None if face is None else face.painter.draw(values[3:], Light(*values[:3]))
