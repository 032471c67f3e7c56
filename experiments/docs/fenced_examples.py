"""Shows the examples of docstrings as code: an extension of Griffe, which reads the code for the site's reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>>[ ].*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class FencedExamples(griffe.Extension):
    """Puts each block that begins with `>>>` between fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda block: f"```pycon\n{block[0]}\n```", obj.docstring.value)
