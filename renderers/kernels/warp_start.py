"""Initialises Warp quietly. Without this, the first import that uses Warp prints a greeting of seven lines."""

from __future__ import annotations

import os
import sys
import tempfile

import warp as wp


def start_warp() -> None:
    """`wp.init()` without its greeting, and without its native code's line on stderr where there is no CUDA driver."""
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        stderr = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            wp.init()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        captured.seek(0)
        for line in captured:
            if b"Could not find or load the NVIDIA CUDA driver" not in line:
                os.write(2, line)
