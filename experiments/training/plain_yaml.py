"""YAML as plain values, within bounds: a deep file, or one of aliases to aliases, is refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from renderers.io.errors import UserError

MOST_CHARACTERS = 250_000
MOST_NODES = 20_000
"""With every alias counted as often as it is used."""
DEEPEST = 40


class _BoundedLoader(yaml.SafeLoader):
    """The safe loader, which makes no objects, with a count of what it composes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth, self.nodes = 0, 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            # An alias inside of what it stands for has no size yet, and never would have one.
            self.nodes += self._sizes.get(self.peek_event().anchor, MOST_NODES)
            return self._bounded(super().compose_node(parent, index))
        anchor, before = self.peek_event().anchor, self.nodes
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        self._bounded(None)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if anchor:
            self._sizes[anchor] = self.nodes - before
        return node

    def _bounded(self, node: yaml.Node | None) -> yaml.Node | None:
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {DEEPEST} levels", None)
        if self.nodes > MOST_NODES:
            raise yaml.composer.ComposerError(None, None, f"more than {MOST_NODES} values, aliases counted", None)
        return node


def parse_yaml(text: str, place: str) -> Any:
    """The plain value that a text holds.

    Args:
        text: YAML.
        place: where the text stands, for messages.

    Raises:
        UserError: it is not YAML, is too long or nested too deeply, or names anything but plain values.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{place}: {len(text)} characters of YAML; at most {MOST_CHARACTERS} are read")
    try:
        return _BoundedLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # a value that its own tag contradicts
        raise UserError(f"{place}: not YAML: {' '.join(str(error).split())[:200]}") from None


def read_yaml(path: Path, place: str | None = None) -> Any:
    """The plain value that a file holds.

    Args:
        path: the file.
        place: what messages call it; its path by default.

    Raises:
        UserError: as `parse_yaml`, or there is no such file, or it is not text.
    """
    place = place or str(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: {error.strerror if isinstance(error, OSError) else 'not a text file'}") from None
    return parse_yaml(text, place)
