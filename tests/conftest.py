"""What may be said to the tests on the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--slow`, `--minutes 60` and `--samples 1000000`: what takes too long for every day."""
    parser.addoption("--slow", action="store_true", help="run the tests marked `slow` too, as every night does")
    parser.addoption("--minutes", type=float, default=None, help="train so long to test that memory stays flat")
    parser.addoption("--samples", type=int, default=20_000, help="so many samples in shards (default: 20000)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the tests marked `slow`, unless `--slow` asks for them."""
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow") is not None:
                item.add_marker(pytest.mark.skip(reason="takes long: pytest --slow"))


@pytest.fixture
def samples(request: pytest.FixtureRequest) -> int:
    """The value of `--samples`."""
    given: int = request.config.getoption("--samples")
    return given


@pytest.fixture
def minutes(request: pytest.FixtureRequest) -> float:
    """The value of `--minutes`; a test that asks for it is skipped where it is not given."""
    given: float | None = request.config.getoption("--minutes")
    if given is None:
        pytest.skip("trains for an hour: pytest -m hour --minutes 60")
    return given
