"""Which face does each pixel see? Two backends behind one function."""

from renderers.raster.rasterize import available_backends, rasterize

__all__ = ["available_backends", "rasterize"]
