"""How a process takes memory for large tensors; where the system is not Linux with glibc, nothing changes.

glibc cannot give a freed aligned block to an equal request: activations of tens of megabytes pile up in its heap. (A
step of self-augmentation at full size with 6 images comes to hold over 15 GB, of which 3.8 GB are in use.) Blocks that
are mapped by themselves leave the process when they are freed; pages of 2 MB make the page faults of that rare.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_MMAP_THRESHOLD = -3  # mallopt's name of the size from which a block is mapped by itself
MAPPED_FROM = 16 * 2**20  # bytes; above the default runs' activations, which are faster in the heap


def use_large_pages() -> None:
    """Maps large tensors by themselves, in large pages. Call it before torch is imported; set variables are kept."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for large pages for what has 2 MB and more
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
