"""Arguments that a module and its data have in common."""

from __future__ import annotations

from jsonargparse import Namespace


def innermost(data: Namespace) -> Namespace:
    """The configuration of the data module that reads the faces, which others may wrap."""
    while "data" in data.get("init_args", {}):
        data = data.init_args.data
    return data


def link_arguments(model: Namespace, data: Namespace) -> None:
    """Sets the arguments that follow from others, in place.

    The module draws an image at the size at which its data reads it. Synthetic data are drawn with the module's face
    model: so a run takes another one by a single line. The data draw corrupted copies from the step at which the module
    uses them. This is not jsonargparse's `link_arguments`, which fails where an argument's class_path
    is a function, as the face model's is.

    Args:
        model: class_path and init_args.
        data: likewise; it may wrap another one.
    """
    taken, read, outermost = (part.get("init_args", {}) for part in (model, innermost(data), data))
    if "size" in read and "image_size" in taken:
        taken.image_size = read.size
    if "face_model" in read and "face_model" in taken:
        read.face_model = taken.face_model.clone()
    if "robust_start" in outermost and "robust_start" in taken:
        outermost.robust_start = taken.robust_start
