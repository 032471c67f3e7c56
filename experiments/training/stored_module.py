"""What a checkpoint says of its module, and the module from it: names of a closed table and plain values.

    {"part": "MGCNet", "arguments": {"backbone": {"part": "ResNet", "arguments": {"depth": 18}}, "image_size": 64, ...}}

Nothing that a file names is imported: a name is looked up in `PARTS`, and every argument must be a plain value of the
type that the constructor declares, before anything is built. What training alone needs is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import reprlib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from datamodules.preparation.file_names import printable
from renderers.io.errors import UserError

Plan = dict[str, Any]
"""A part's name and its arguments: mappings, lists, numbers, text and parts again."""

FILES = Path("data")
"""Where the files lie that a checkpoint may name: face models, and weights of encoders."""


@dataclass(frozen=True)
class Part:
    """A class or a function that makes one: the module it stands in, and which of its arguments are names of files."""

    module: str
    files: frozenset[str] = frozenset()


PARTS: Mapping[str, Part] = {
    "MGCNet": Part("lightning_modules.mgcnet"),
    "ROGUE": Part("lightning_modules.rogue"),
    "SelfAugmentation": Part("lightning_modules.self_augmentation"),
    "Specular": Part("lightning_modules.specular"),
    "Finegrained": Part("lightning_modules.finegrained"),
    "DenseFace": Part("lightning_modules.dense_face"),
    "ThinResNet": Part("lightning_modules.dense_face"),
    "ResNet": Part("lightning_modules.components.backbones"),
    "VGG": Part("lightning_modules.components.backbones"),
    "load_face_model": Part("renderers.face_models.load", frozenset({"spec", "albedo", "landmarks"})),
    "DlibEncoder": Part("losses.encoders", frozenset({"weights"})),
    "DlibLayers": Part("losses.encoders", frozenset({"weights"})),
    "AttributeEncoder": Part("losses.encoders"),
    "DelusionalOcclusion": Part("datamodules.corruption"),
    "RationalOcclusion": Part("datamodules.corruption"),
    "Noise": Part("datamodules.corruption"),
}
"""All that a checkpoint can name. The networks of a user's own files are not among them: TorchScript is a program."""

FOR_ANY_MODULE: Mapping[str, frozenset[str]] = {
    "corruption": frozenset({"DelusionalOcclusion", "RationalOcclusion", "Noise"}),
}
"""The parts that may stand for an argument of which its constructor only says that it is an nn.Module."""

TRAINING_ONLY = {"init_weights", "pretrained"}
DEEPEST, MOST_VALUES, MOST_ITEMS, LONGEST_TEXT = 16, 2_000, 128, 4_096
MOST_PARTS = 24  # the papers' configurations name at most 8
BUILTIN_FILE = "default"  # a face model that is no file


@dataclass(frozen=True)
class Trust:
    """What a user says on the command line that a checkpoint may name beside `PARTS` and files in `data/`.

    Attributes:
        modules: Python modules whose classes it may build, with all below them.
        folders: where it may read files.
    """

    modules: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> Trust:
        """What was given by the options of `add_trust_arguments`."""
        return cls(tuple(args.trust_classes), tuple(args.trust_folder))


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that builds a checkpoint's module."""
    parser.add_argument(
        "--trust-classes", action="append", default=[], metavar="MODULE",
        help="a Python module of your own whose classes the checkpoint may build",
    )  # fmt: skip
    parser.add_argument(
        "--trust-folder", action="append", default=[], type=Path, metavar="FOLDER",
        help="a folder beside data/ in which the checkpoint may name files, such as its face model",
    )  # fmt: skip


def describe(section: Any, place: str) -> Plan:
    """The plan of a `model` section as configurations have it; nothing is imported.

    Args:
        section: class_path and init_args.
        place: what messages call it.

    Raises:
        UserError: it is no such section, or holds something else than plain values.
    """
    return plain_plan(_described(section, 0), place)


def _described(value: Any, depth: int) -> Any:
    if depth > 2 * DEEPEST:
        return None  # `plain_plan` refuses what is above.
    if isinstance(value, Mapping) and "class_path" in value:
        given = [value.get(name) or {} for name in ("init_args", "dict_kwargs")]
        arguments = {name: item for part in given if isinstance(part, Mapping) for name, item in part.items()}
        whole = all(isinstance(part, Mapping) for part in given)
        return {
            "part": _known_name(value["class_path"]),
            "arguments": {
                name: _described(item, depth + 1) for name, item in arguments.items() if not _trains(name)
            } if whole else None,
        }  # fmt: skip
    if isinstance(value, Mapping):
        return {name: _described(item, depth + 1) for name, item in value.items()}
    return [_described(item, depth + 1) for item in value] if isinstance(value, (list, tuple)) else value


def _known_name(class_path: Any) -> Any:
    """The name in `PARTS` of what stands in one of the project's packages, wherever it stood there; else as it is."""
    if not isinstance(class_path, str):
        return None
    module, _, name = class_path.rpartition(".")
    ours = name in PARTS and module.split(".")[0] in ("", PARTS[name].module.split(".")[0])
    return name if ours else class_path


def _trains(name: Any) -> bool:
    return name in TRAINING_ONLY or (isinstance(name, str) and name.endswith("optimizer"))


def plain_plan(value: Any, place: str) -> Plan:
    """A plan as it is, once it is known to hold plain values alone, not too many and not too deeply nested.

    Raises:
        UserError: it is no plan.
    """
    left = [MOST_VALUES]

    def check(item: Any, depth: int) -> None:
        left[0] -= 1
        if depth > DEEPEST or left[0] < 0:
            raise UserError(f"{place}: damaged: what it says of its module is too long, or nested too deeply")
        if type(item) is dict:
            for name, inner in item.items():
                check(name, DEEPEST)
                check(inner, depth + 1)
        elif type(item) in (list, tuple):
            for inner in item:
                check(inner, depth + 1)
        elif (type(item) is str and len(item) > LONGEST_TEXT) or (type(item) is int and abs(item) >= 2**63):
            raise UserError(f"{place}: damaged: what it says of its module holds too long a value")
        elif type(item) not in (str, int, float, bool, NoneType):
            raise UserError(f"{place}: damaged: what it says of its module holds a {type(item).__name__}")

    check(value, 0)
    if not _is_part(value):
        raise UserError(f"{place}: it does not say which module it holds; `python -m experiments fit` writes that")
    return value


def _is_part(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"part", "arguments"}
        and isinstance(value["part"], str)
        and isinstance(value["arguments"], dict)
        and all(isinstance(name, str) for name in value["arguments"])
    )


Maker = Callable[[], Any]
"""Builds a value that has been checked."""


class Builder:
    """Checks values of a file against the types that constructors declare, and builds from them.

    Args:
        place: the file, for messages.
        trust: what may be named beside the project's own.
    """

    def __init__(self, place: str, trust: Trust = Trust()) -> None:
        self.place, self.trust = place, trust
        self.files: list[str] = []
        self.parts = 0

    def build(self, value: Any, hint: Any) -> Any:
        """The value as the type that `hint` declares, its parts built.

        Raises:
            UserError: a name outside the table, a value of another type, or one that a constructor refuses.
        """
        try:
            make = self.check(value, hint, "")
            for file in self.files:
                print(printable(f"{self.place} names {file}, which is read"))
            return make()
        except (UserError, OSError) as error:
            raise UserError(f"{self.place}: {error}") from error
        except Exception as error:  # Whatever a constructor meets in numbers that no training ever had.
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{self.place}: its parts cannot be built: {type(error).__name__}: {told}") from error

    def check(self, value: Any, hint: Any, name: str) -> Maker:
        """What builds `value`, which is of the type `hint`; nothing is built before all is checked."""
        origin, inner = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            return self._one_of(value, inner, name)
        if origin is Literal:
            fits = any(value == option and type(value) is type(option) for option in inner)
        elif hint in (int, bool, str, NoneType):
            fits = type(value) is hint
        elif hint is float:
            fits = type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)
        elif hint is Path:
            fits = type(value) is str
        elif origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
            return self._sequence(value, hint, name)
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(value, dict.fromkeys(value, inner[1]) if isinstance(value, dict) else {}, dict, name)
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self._mapping(value, typing.get_type_hints(hint), hint, name)
        elif hint is Any:
            fits = not isinstance(value, (dict, list, tuple))
        elif origin is None and isinstance(hint, type):
            return self._part(value, hint, name)
        else:
            fits = False
        if not fits:
            raise UserError(f"{name} is {reprlib.repr(value)}, which is no {getattr(hint, '__name__', hint)}")
        return lambda: float(value) if hint is float else Path(value) if hint is Path else value

    def _one_of(self, value: Any, hints: Sequence[Any], name: str) -> Maker:
        *first, last = [hint for hint in hints if (hint is NoneType) == (value is None)] or list(hints)[:1]
        for hint in first:
            try:
                return self.check(value, hint, name)
            except UserError:
                continue
        return self.check(value, last, name)

    def _sequence(self, value: Any, hint: Any, name: str) -> Maker:
        inner = get_args(hint)
        fixed = get_origin(hint) is tuple and Ellipsis not in inner
        if not isinstance(value, (list, tuple)) or len(value) > MOST_ITEMS or (fixed and len(value) != len(inner)):
            raise UserError(f"{name} is {reprlib.repr(value)}, which is no {hint}")
        each = inner if fixed else [inner[0]] * len(value)
        makers = [self.check(item, kind, name) for item, kind in zip(value, each, strict=True)]
        kind = tuple if get_origin(hint) is tuple else list
        return lambda: kind(make() for make in makers)

    def _mapping(self, value: Any, hints: Mapping[str, Any], kind: Callable[..., Any], name: str) -> Maker:
        if not isinstance(value, dict) or len(value) > MOST_ITEMS or not all(isinstance(key, str) for key in value):
            raise UserError(f"{name} is {reprlib.repr(value)}, which is no mapping of names to values")
        unknown = [key for key in value if key not in hints]
        if unknown:
            raise UserError(f"{name} has {reprlib.repr(unknown[0])}, which this version does not know")
        makers = {key: self.check(item, hints[key], f"{name}.{key}".lstrip(".")) for key, item in value.items()}
        return lambda: kind(**{key: make() for key, make in makers.items()})

    def _part(self, value: Any, kind: type, name: str) -> Maker:
        from torch import nn

        if not _is_part(value):
            raise UserError(f"{name} is {reprlib.repr(value)}, which is no {kind.__name__}")
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise UserError(f"it names more than {MOST_PARTS} parts, which no paper needs")
        called, arguments = value["part"], {key: v for key, v in value["arguments"].items() if not _trains(key)}
        factory = self._factory(called)
        hints = typing.get_type_hints(
            inspect.getattr_static(factory, "__init__") if isinstance(factory, type) else factory
        )
        made = factory if isinstance(factory, type) else hints.get("return")
        known_for = FOR_ANY_MODULE.get(name.rpartition(".")[2], frozenset())
        unfit = kind is nn.Module and called in PARTS and called not in known_for
        if unfit or not (isinstance(made, type) and issubclass(made, kind)):
            raise UserError(f"{name or 'its module'} is {called}, which is no {kind.__name__}")
        taken = inspect.signature(factory).parameters
        known = {key for key, parameter in taken.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}
        unknown = [key for key in arguments if key not in known]
        if unknown and len(known) == len(taken):
            raise UserError(f"another version of {called} wrote it, with the argument {reprlib.repr(unknown[0])}")
        for key in PARTS[called].files if called in PARTS else ():
            if isinstance(arguments.get(key), str):
                arguments[key] = self._file(arguments[key], key)
        return self._mapping(arguments, {key: hints.get(key, Any) for key in arguments}, factory, name)

    def _factory(self, called: str) -> Callable[..., Any]:
        if called in PARTS:
            return getattr(import_module(PARTS[called].module), called)
        module, _, name = called.rpartition(".")
        if not any(module == known or module.startswith(f"{known}.") for known in self.trust.modules):
            hint = f"; if it is yours, and you trust the file: --trust-classes {module}" if module.isprintable() else ""
            raise UserError(
                f"it names {called[:200]!r}, which no checkpoint may name, and which was not imported{hint}"
            )
        try:
            factory = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{called}: {error}") from error
        if not callable(factory):
            raise UserError(f"{called} makes nothing")
        return factory

    def _file(self, named: str, argument: str) -> str:
        """A file that the checkpoint names, where it may be read: symbolic links in there are the user's own."""
        if argument == "spec" and named == BUILTIN_FILE:
            return named
        if not named.isprintable():
            raise UserError(f"it names {named[:200]!r} as {argument}, which cannot be printed, and is not read")
        path = Path(named).expanduser()
        allowed = [folder.expanduser().absolute() for folder in (FILES, *self.trust.folders)]
        if ".." in path.parts or not any(path.absolute().is_relative_to(folder) for folder in allowed):
            raise UserError(
                f"it names {named[:200]!r} as {argument}; files that a checkpoint names are read from {FILES}/ here; "
                "another folder is allowed by --trust-folder FOLDER"
            )
        self.files.append(str(path))
        return str(path)
