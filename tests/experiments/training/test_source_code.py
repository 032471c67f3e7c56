"""The digests of the code follow what it does."""

from __future__ import annotations

import pytest

from experiments.papers import papers_with
from experiments.training.source_code import code_digests, parts_of, without_prose

SOURCE = '''"""What it is."""

def half(x):
    """Half."""
    return x / 2  # a comment
'''


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (SOURCE.replace("Half.", "One half."), True),
        (SOURCE.replace("  # a comment", ""), True),
        (SOURCE.replace("What it is.", "Else."), True),
        (SOURCE.replace("return x / 2", "return (x / 2)"), True),
        (SOURCE.replace("x / 2", "x / 3"), False),
        (SOURCE.replace("def half", "def third"), False),
    ],
)
def test_prose_makes_no_difference(other: str, same: bool) -> None:
    assert other != SOURCE
    assert (without_prose(other) == without_prose(SOURCE)) is same


def test_every_paper_has_digests_of_its_own() -> None:
    digests = code_digests()
    papers = papers_with("table.yaml")
    assert len(papers) == 5 and set(digests) >= {part for paper in papers for part in parts_of(paper)}
    assert len({digests[f"lightning_modules/{paper}"] for paper in papers}) == 5
