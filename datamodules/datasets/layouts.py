"""The data sets that `prepare` knows, by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.datasets.face_records import Layout

# name on the command line: (module, one line for the help)
LAYOUTS = {
    "celeba": ("celeba", "CelebA: 202,599 aligned photographs, official splits"),
    "celebamask-hq": ("celebamask_hq", "CelebAMask-HQ: 30,000 photographs with hand-drawn masks"),
    "300w-lp": ("w300lp", "300W-LP: faces turned to many yaws, with landmarks"),
    "aflw2000": ("aflw2000", "AFLW2000-3D: 2,000 test photographs with 68 3D landmarks"),
    "lfw": ("lfw", "LFW: 13,233 photographs of 5,749 people"),
    "ls3d-w": ("ls3dw", "LS3D-W: photographs with 68 landmarks each"),
    "multi-pie": ("multi_pie", "Multi-PIE: people seen by 13 cameras at once"),
    "micc": ("micc", "MICC Florence: frames of three clips a person"),
    "facescape": ("facescape", "FaceScape: multi-view photographs of 20 expressions"),
    "bu3dfe": ("bu3dfe", "BU-3DFE: photographs that belong to scans"),
    "frgc": ("frgc", "FRGC v2: photographs that belong to range images"),
    "now": ("now", "NoW: the validation photographs of the benchmark"),
}


def load_layout(name: str) -> Layout:
    """The layout of the data set of that name.

    Raises:
        KeyError: no such data set.
    """
    layout: Layout = import_module(f"{__package__}.{LAYOUTS[name][0]}").LAYOUT
    return layout
