"""Large tensors lie outside the heap, so that they leave the process when they are freed."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.training import allocator

ROOT = Path(__file__).parents[3]
# glibc comes to keep blocks of a freed one's size in its heap: afterwards, are 20 MB mapped by themselves?
PROGRAM = """
import ctypes, sys
if sys.argv[1] == "large pages":
    from experiments.training.allocator import use_large_pages
    use_large_pages()
import torch

class Usage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Usage
torch.ones(6 * 2**20)
before = mallinfo().hblkhd
activation = torch.ones(5 * 2**20)
print(mallinfo().hblkhd - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is set")
@pytest.mark.parametrize(("mode", "mapped"), [("as it comes", False), ("large pages", True)])
def test_large_tensors_are_mapped_by_themselves(mode: str, mapped: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_"))}
    command = [sys.executable, "-c", PROGRAM, mode]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (int(answer.stdout) >= 20 * 2**20) is mapped


def test_variables_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    class Library:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            called.append(value)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    allocator.use_large_pages()
    assert not called and os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    allocator.use_large_pages()
    assert called == [allocator.MAPPED_FROM]
