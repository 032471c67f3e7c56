"""A reconstructed face as USDZ, which phones open without an app: the mesh and its texture, in metres."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from renderers.face_models.mesh_edit import vertex_normals
from renderers.io.atomic_file import written_atomically
from renderers.io.errors import UserError
from renderers.io.obj_file import ObjError, ObjMesh, read_obj
from renderers.units import MILLIMETRES_PER_METRE

MESH, TEXTURE = "mesh.obj", "mesh.png"


def write_usdz(result: Path, out: Path) -> None:
    """Write the mesh of a result of `reconstruct` as one file.

    Args:
        result: the folder with `mesh.obj` and `mesh.png`, millimetres.
        out: the USDZ file.

    Raises:
        UserError: usd-core is not installed, or the folder holds no such mesh.
    """
    try:
        from pxr import Sdf, UsdUtils
    except ImportError:
        raise UserError("USDZ is written by the package usd-core: pip install usd-core") from None
    try:
        mesh = read_obj(result / MESH)
        if mesh.corners.min() < 0 or not (result / TEXTURE).is_file():
            raise ObjError(f"it has no texture coordinates, or no {TEXTURE} lies beside it")
    except (OSError, ObjError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{result / MESH}: {told}; give the folder of a face that `reconstruct` wrote") from error
    with tempfile.TemporaryDirectory() as folder, written_atomically(out) as temporary:
        shutil.copy(result / TEXTURE, folder)
        layer = Path(folder) / "face.usdc"
        _stage(layer, mesh).Save()
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(temporary)):
            raise UserError(f"{out}: cannot be written; choose another --out")


def _stage(path: Path, mesh: ObjMesh) -> Any:
    """A USD stage with the mesh and a matt material that shows `TEXTURE`, which lies beside `path`."""
    from pxr import Sdf, Usd, UsdGeom, UsdShade, Vt

    points = mesh.vertices / MILLIMETRES_PER_METRE
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/face").GetPrim())
    body = UsdGeom.Mesh.Define(stage, "/face/mesh")
    body.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points.astype("f4")))
    body.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(body.GetPointsAttr().Get()))
    body.CreateFaceVertexCountsAttr([3] * len(mesh.triangles))
    body.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.triangles.ravel().astype("i4")))
    body.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(vertex_normals(points, mesh.triangles).astype("f4")))
    body.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    body.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    places = UsdGeom.PrimvarsAPI(body).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
    )
    places.Set(Vt.Vec2fArray.FromNumpy(mesh.uv[mesh.corners.ravel()].astype("f4")))

    material = UsdShade.Material.Define(stage, "/face/material")
    shader, picture, reader = (
        UsdShade.Shader.Define(stage, f"/face/material/{name}") for name in ("surface", "texture", "places")
    )
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    picture.CreateIdAttr("UsdUVTexture")
    picture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{TEXTURE}")
    picture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    found = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    picture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(found)
    color = picture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(color)
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
    UsdShade.MaterialBindingAPI.Apply(body.GetPrim()).Bind(material)
    return stage
