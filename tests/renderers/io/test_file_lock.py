"""Lock files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from renderers.io.errors import UserError
from renderers.io.file_lock import locked


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    link = locked(tmp_path / ".lock", lambda: None)
    with pytest.raises(UserError, match="a symbolic link, where a lock file belongs"), link:
        pass
    assert not (tmp_path / "elsewhere").exists()
