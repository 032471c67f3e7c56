"""Finds misspelt arguments before Lightning is imported.

Importing torch and Lightning takes seconds; a wrong name should answer at once. So the names that a class takes are
read from its source, without importing it. What cannot be decided this way is left to the full parser.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.papers import papers_with
from experiments.training.plain_yaml import read_yaml
from experiments.training.run_folder import resumed_path
from lightning_modules.components.checkpoint_path import check_checkpoint_path
from renderers.io.errors import UserError

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
# What every Trainer command takes beside the trainer, the model and the data.
TOP_LEVEL = {
    "config", "help", "print_config", "seed_everything", "trainer", "model", "data", "ckpt_path", "paper", "run_id",
    "runs_dir", "wandb", "resume", "checkpoint_every",
}  # fmt: skip
# jsonargparse's own words inside a class.
RESERVED = {"class_path", "init_args", "dict_kwargs", "help"}


@dataclass(frozen=True)
class Parameter:
    """One argument of a class: its annotation as written, and the module in which that was written."""

    annotation: str
    module: str


def check_arguments(command: str, arguments: list[str]) -> None:
    """Looks at configuration files, at the names of overrides, and whether the checkpoints are there.

    Raises:
        UserError: a file that is missing or is not YAML, or a name that nothing takes.
    """
    if any(argument in ("-h", "--help") or argument.split("=")[0].endswith(".help") for argument in arguments):
        return
    classes: dict[str, str] = {}
    given: dict[str, object] = {}
    options = list(_options(arguments))
    for name, value in options:
        if name in ("config", "c"):
            _check_file(Path(value or ""), classes, given)
    for name, value in options:
        part, _, rest = name.partition(".")
        if part in ("model", "data") and rest in ("", "class_path") and value:
            if Path(value).is_file():
                classes.pop(part, None)  # which class the file names is for the full parser to say
            else:
                classes[part] = value
    for name, value in options:
        given[_short(name)] = value
        if name != "c":
            _check_key(name.rstrip("+").split("."), value, classes, f"--{name}")
    if not {name.split(".")[0] for name, _ in options} & {"config", "c", "model", "print_config"}:
        shipped = ", ".join(f"experiments/{paper}/default.yaml" for paper in papers_with("default.yaml"))
        raise UserError(f"{command} needs a configuration: --config FILE (shipped: {shipped or 'none'})")
    _check_checkpoints(given)


def _short(name: str) -> str:
    return name.replace(".init_args.", ".")


def _check_checkpoints(given: Mapping[str, object]) -> None:
    """Looks whether the checkpoints that a command starts from are there at all."""
    resume = given.get("resume")
    names = ["model.init_weights"] if resume else ["model.init_weights", "ckpt_path"]
    for path in map(given.get, names):
        if isinstance(path, str) and path not in ("", "null", "None"):
            check_checkpoint_path(Path(path))
    if isinstance(resume, str) and resume not in ("auto", "null", "None"):
        resumed_path(resume, Path(str(given.get("runs_dir") or "runs")), str(given.get("paper")))


def _options(arguments: list[str]) -> Iterator[tuple[str, str | None]]:
    """(name, value) of every option, in order."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("-") or argument == "--":
            raise UserError(f"unexpected argument {argument!r}: options are written --name=value")
        name, equals, value = argument.lstrip("-").partition("=")
        if equals:
            yield name, value
        elif position < len(arguments) and not re.match(r"--?[A-Za-z]", arguments[position]):
            yield name, arguments[position]
            position += 1
        else:
            yield name, None


def _check_file(path: Path, classes: dict[str, str], given: dict[str, object]) -> None:
    tree = read_yaml(path, f"--config {path}")
    if not isinstance(tree, dict):
        raise UserError(f"--config {path}: expected a mapping of names to values")
    for part in ("model", "data"):
        section = tree.get(part)
        if isinstance(section, dict) and isinstance(section.get("class_path"), str):
            classes[part] = section["class_path"]
    for keys, value in _leaves(tree, ()):
        given[_short(".".join(keys))] = value
        _check_key(list(keys), value, classes, f"{path}: {'.'.join(keys)}")


def _leaves(tree: Mapping[Any, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def _check_key(keys: list[str], value: object, classes: Mapping[str, str], place: str) -> None:
    _known(keys[0], TOP_LEVEL, place)
    if keys[0] == "trainer":
        owner = TRAINER
    elif keys[0] in ("model", "data") and keys[0] in classes:
        owner = classes[keys[0]]
        if "." in owner and not _source(owner.rpartition(".")[0]):
            raise UserError(f"{keys[0]}: there is no {owner.rpartition('.')[0]}, the module of {owner}")
    else:
        return
    keys, start = keys[1:], owner
    while keys:
        if keys[0] in RESERVED:
            if keys[0] != "init_args" or owner != start:
                return  # A part's own class_path decides what it takes.
            keys = keys[1:]
            continue
        taken = parameters(owner)
        if taken is None:
            return
        _known(keys[0], set(taken), f"{place}: {owner.rpartition('.')[2]}")
        parameter, keys = taken[keys[0]], keys[1:]
        if not keys:
            _check_number(parameter.annotation, value, place)
        owner = _resolve(parameter.module, parameter.annotation) or ""
        if not owner:
            return


def _known(name: str, names: set[str], place: str) -> None:
    if name in names:
        return
    near = difflib.get_close_matches(name, sorted(names), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(sorted(names))}"
    raise UserError(f"{place}: no argument {name!r}{hint}")


def _check_number(annotation: str, value: object, place: str) -> None:
    """Numbers are the one kind of value whose mistakes are plain without the full parser."""
    kinds = {part.strip() for part in re.sub(r"Optional\[(.*)\]", r"\1 | None", annotation).split("|")}
    convert = {"int": int, "float": float}
    if not isinstance(value, str) or not kinds or not kinds <= {"int", "float", "None"}:
        return
    if "None" in kinds and value in ("null", "None"):
        return
    for kind in kinds - {"None"}:
        try:
            convert[kind](value)
            return
        except ValueError:
            continue
    raise UserError(f"{place}: expected {' or '.join(sorted(kinds - {'None'}))}, got {value!r}")


def _source(module: str) -> Path | None:
    """The file of a module, found without importing any package."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    for folder in spec.submodule_search_locations or []:
        path = Path(folder).joinpath(*rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def _definitions(module: str) -> Mapping[str, ast.stmt]:
    """Classes and imported names at the top of a module."""
    source = _source(module)
    if source is None or source.suffix != ".py":
        return {}
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            found.update({alias.asname or alias.name: statement for alias in statement.names})
    return found


def _find(path: str) -> tuple[str, ast.ClassDef] | None:
    """(module, definition) of a class, through re-exports."""
    module, _, name = path.rpartition(".")
    for _ in range(8):
        statement = _definitions(module).get(name)
        if isinstance(statement, ast.ClassDef):
            return module, statement
        if not isinstance(statement, ast.ImportFrom) or not statement.module:
            return None
        name = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        module = statement.module
    return None


def _resolve(module: str, annotation: str) -> str | None:
    """The import path of a data class that an annotation names, alone or as an optional one.

    In the place of any other class a configuration may put a subclass, or a function that makes one.
    """
    names = [part.strip() for part in annotation.split("|") if part.strip() != "None"]
    if len(names) != 1 or not names[0].isidentifier():
        return None
    found = _find(f"{module}.{names[0]}")
    return f"{module}.{names[0]}" if found and _is_dataclass(found[1]) else None


def _is_dataclass(definition: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list)


@functools.cache
def parameters(path: str) -> Mapping[str, Parameter] | None:
    """The arguments that a class takes, or None where its source does not say."""
    found = _find(path)
    if found is None:
        return None
    module, definition = found
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            if statement.args.kwarg:
                return None
            taken = [*statement.args.args[1:], *statement.args.kwonlyargs]
            return {item.arg: Parameter(_written(item.annotation), module) for item in taken}
    inherited: dict[str, Parameter] = {}
    for base in definition.bases:
        above = parameters(f"{module}.{ast.unparse(base)}")
        if above is None:
            return None
        inherited.update(above)
    if _is_dataclass(definition):
        fields = [item for item in definition.body if isinstance(item, ast.AnnAssign)]
        inherited.update({ast.unparse(item.target): Parameter(_written(item.annotation), module) for item in fields})
        return inherited
    return inherited or None


def _written(annotation: ast.expr | None) -> str:
    text = ast.unparse(annotation) if annotation else ""
    return text.strip("'\"")


def short_message(message: str) -> str:
    """jsonargparse explains itself on many lines: keep what names the argument and what is wrong with it."""
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'NoneType'>", "Help:")
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    kept = [line for line in lines if line and not line.startswith(noise) and "Namespace(" not in line]
    kept = [line for line in kept if "NestedArg(" not in line]
    told = " ".join(dict.fromkeys(kept)).replace("<class '", "").replace("'>", "")
    told = re.sub(r'Parser key "([^"]*)":', r"\1:", told)
    return told if len(told) <= 400 else told[:400] + " ..."


def unwrapped(error: Exception) -> Exception:
    """What a constructor raised, where jsonargparse wrapped it into an account of the types that it tried."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (UserError, OSError)):
            return cause
        cause = cause.__cause__
    return error
