"""Runs the notebooks, and keeps the picture that each ends with for the site.

python -m experiments.docs.notebooks .github
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    for source in ("render", "fit", "train"):
        names = runpy.run_path(str(Path(__file__).with_name(f"{source}.py")))
        names["picture"].save(Path(sys.argv[1]) / f"notebook_{source}.png", optimize=True)
