"""Reads owners' text files and folders of a data set, without leaving the data set's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from datamodules.preparation.photo_file import SUFFIXES
from renderers.io.errors import UserError

LARGEST_LIST = 256 * 2**20  # bytes; the list of 200,000 photographs takes 3 MB
SHOWN = 6  # entries of a folder that an error message lists


def data_folder(root: Path, title: str, candidates: Sequence[str], holds: str) -> Path:
    """The first of some folders under `root` that exists; "." is `root` itself.

    Args:
        root: the data set's folder as the user gave it.
        title: the data set's name for people.
        candidates: paths relative to `root`, forward slashes.
        holds: what is expected in it, for the error message.

    Raises:
        UserError: `root` is no folder, or none of them exists. The message says what was expected and what was found.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}")
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise mismatch(root, title, f"{' or '.join(f'{candidate}/' for candidate in candidates)} with {holds}")


def mismatch(root: Path, title: str, expected: str) -> UserError:
    """The error for a folder that is not laid out as its owner distributes it."""
    names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in root.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    found = ", ".join(names[:SHOWN]) + more if names else "nothing"
    return UserError(f"{root} is not laid out as {title}: expected {expected}; found {found}")


def find_file(root: Path, title: str, candidates: Sequence[str]) -> Path:
    """The first of some files under `root` that exists.

    Raises:
        UserError: none of them is there.
    """
    for candidate in candidates:
        if (root / candidate).is_file():
            return root / candidate
    raise mismatch(root, title, " or ".join(candidates))


def read_rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, words) of every line that is not blank.

    Args:
        path: a text file in UTF-8.
        columns: number of words in a line.

    Raises:
        UserError: not readable as text, too large, or a line with another number of words.
    """
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != columns:
            shown = line if len(line) <= 80 else line[:77] + "..."
            raise UserError(f"{path}, line {number}: expected {columns} words, found {shown!r}")
        yield number, words


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        UserError: it is missing, too large to be a list, or not text.
    """
    try:
        if path.stat().st_size > LARGEST_LIST:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for a list")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def inside(name: str, where: str) -> str:
    """Check that a path from a list file stays inside the data set's folder, and return it.

    Args:
        name: relative, with forward slashes.
        where: the file and line that it comes from, for the error message.

    Returns:
        The same path without "." parts.

    Raises:
        UserError: it is absolute, leads upwards, or holds a character that no owner's path holds.
    """
    path = PurePosixPath(name)
    strange = "\\" in name or any(ord(letter) < 32 for letter in name)
    if not path.parts or path.is_absolute() or ".." in path.parts or strange or ":" in path.parts[0]:
        raise UserError(f"{where}: {name!r} leads out of the data set's folder; only paths inside it are read")
    return str(path)


def pictures(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The pictures that lie directly in a folder, in order of name, without hidden ones."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(found)


def subfolders(folder: Path) -> list[Path]:
    """The folders that lie directly in a folder, in order of name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
