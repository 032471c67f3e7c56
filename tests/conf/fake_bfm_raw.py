"""The raw files of BFM 2009 in their owners' layout, made of random numbers; no licensed data is in or behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.io

from tests.conf.fake_bfm import fake_bfm

IDENTITY, EXPRESSION = 199, 79  # modes in the licensed files
WHOLE, TRIMMED = 900, 860  # vertices of 01_MorphableModel.mat and of Exp_Pca.bin; 53,490 and 53,215 in those


def write_fake_bfm_raw(folder: Path, seed: int = 0) -> Path:
    """Writes the six files around the face of `fake_bfm`, 800 vertices; returns the folder."""
    rng = np.random.default_rng(seed)
    face = fake_bfm(seed=seed)
    front = face["meanshape"].size // 3
    trimmed = np.sort(rng.permutation(WHOLE)[:TRIMMED])
    kept = rng.permutation(TRIMMED)[:front]
    mean, color = rng.normal(0, 5e4, (2, WHOLE, 3))
    mean[trimmed[kept]] = 1e5 * face["meanshape"].reshape(-1, 3)
    color[trimmed[kept]] = face["meantex"].reshape(-1, 3)
    folder.mkdir(parents=True, exist_ok=True)
    statistics = {
        "shapeMU": mean.reshape(-1, 1).astype(np.float32),
        "texMU": color.reshape(-1, 1).astype(np.float32),
        "shapePC": rng.normal(0, 0.02, (3 * WHOLE, IDENTITY)).astype(np.float32),
        "texPC": rng.normal(0, 0.02, (3 * WHOLE, IDENTITY)).astype(np.float32),
        "shapeEV": np.geomspace(8e5, 2e4, IDENTITY)[:, None].astype(np.float32),
        "texEV": np.geomspace(4e3, 1e2, IDENTITY)[:, None].astype(np.float32),
    }
    # The front's triangles, all that turn the other way, and some that leave the trimmed mesh.
    triangles = trimmed[kept][face["tri"] - 1]
    left_out = np.setdiff1d(np.arange(WHOLE), trimmed)
    statistics["tl"] = np.concatenate([triangles, np.resize(left_out, (9, 3))])[:, ::-1].astype(np.float64) + 1
    scipy.io.savemat(folder / "01_MorphableModel.mat", statistics)
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": (trimmed[:, None] + 1).astype(np.int32)})
    scipy.io.savemat(folder / "BFM_front_idx.mat", {"idx": (kept[:, None] + 1).astype(np.int32)})
    labels = ("tri", "keypoints", "skinmask", "frontmask2_idx", "point_buf", "tri_mask2")
    scipy.io.savemat(folder / "facemodel_info.mat", {name: face[name] for name in labels})
    np.savetxt(folder / "std_exp.txt", np.geomspace(9e5, 3e4, EXPRESSION))
    with (folder / "Exp_Pca.bin").open("wb") as file:
        np.array([EXPRESSION], dtype="<i4").tofile(file)
        rng.normal(0, 1, 3 * TRIMMED).astype("<f4").tofile(file)
        rng.normal(0, 0.02, (EXPRESSION, 3 * TRIMMED)).astype("<f4").tofile(file)
    return folder


def compose_front_model(folder: Path, path: Path) -> Path:
    """Writes the `BFM_model_front.mat` that Deep3D-style code makes of the folder, by the formats' own words."""
    raw = scipy.io.loadmat(folder / "01_MorphableModel.mat")
    trimmed = scipy.io.loadmat(folder / "BFM_exp_idx.mat")["trimIndex"][:, 0] - 1
    front = scipy.io.loadmat(folder / "BFM_front_idx.mat")["idx"][:, 0] - 1
    stored = np.fromfile(folder / "Exp_Pca.bin", "<f4", offset=4)
    modes = stored[3 * TRIMMED :].reshape(EXPRESSION, TRIMMED, 3)
    deviations = np.array([float(line) for line in (folder / "std_exp.txt").read_text().splitlines()])
    identity = (raw["shapePC"] * raw["shapeEV"].T / 1e5).reshape(WHOLE, 3, IDENTITY)
    texture = (raw["texPC"] * raw["texEV"].T).reshape(WHOLE, 3, IDENTITY)
    expression = np.moveaxis(modes * deviations[:, None, None] / 1e5, 0, -1)
    labels = scipy.io.loadmat(folder / "facemodel_info.mat")
    content = {
        "meanshape": (raw["shapeMU"].reshape(-1, 3) / 1e5)[trimmed][front].reshape(1, -1),
        "meantex": raw["texMU"].reshape(-1, 3)[trimmed][front].reshape(1, -1),
        "idBase": identity[trimmed][front][..., :80].reshape(-1, 80),
        "texBase": texture[trimmed][front][..., :80].reshape(-1, 80),
        "exBase": expression[front][..., :64].reshape(-1, 64),
        **{name: labels[name] for name in ("tri", "keypoints", "skinmask", "frontmask2_idx", "point_buf", "tri_mask2")},
    }
    scipy.io.savemat(path, content)
    return path
