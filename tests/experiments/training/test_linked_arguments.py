"""Arguments that follow from others."""

from __future__ import annotations

from jsonargparse import Namespace

from experiments.training.linked_arguments import innermost, link_arguments


def test_data_and_module_agree() -> None:
    model = Namespace(init_args=Namespace(image_size=224, face_model=Namespace(spec="flame.npz"), robust_start=7))
    inner = Namespace(init_args=Namespace(size=64, face_model=Namespace(spec="default")))
    data = Namespace(init_args=Namespace(data=inner, robust_start=0))
    link_arguments(model, data)
    assert innermost(data) is inner
    assert model.init_args.image_size == 64
    assert inner.init_args.face_model.spec == "flame.npz" and data.init_args.robust_start == 7


def test_what_one_of_them_lacks_is_left_alone() -> None:
    model, data = Namespace(init_args=Namespace(depth=18)), Namespace(init_args=Namespace(size=64))
    link_arguments(model, data)
    assert model == Namespace(init_args=Namespace(depth=18)) and data == Namespace(init_args=Namespace(size=64))
