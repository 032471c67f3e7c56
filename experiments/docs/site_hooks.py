"""What MkDocs runs on every page: takes in files from beside the code, and points their links at the site.

A line of a page may say

    {{ include lightning_modules/mgcnet/README.md }}    a Markdown file, or a notebook in Jupytext's percent format
    {{ public renderers }}                              the reference of a package's public names
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = "experiments/docs/pages"
PICTURES = (".png", ".jpg", ".gif", ".svg")
DIRECTIVE = re.compile(r"^\{\{ (include|public) (\S+) \}\}$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the README's pictures."""
    for path in sorted((ROOT / ".github").iterdir()):
        if path.suffix in PICTURES:
            files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with everything in it that it names."""
    written = _on_site(markdown, f"{PAGES}/{page.file.src_uri}")
    return DIRECTIVE.sub(_taken_in, written)


def _taken_in(found: re.Match[str]) -> str:
    kind, name = found.groups()
    if kind == "public":
        return public_names(name)
    if not (ROOT / name).is_file():
        raise PluginError(f"{name}: no such file to include")
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        return notebook(text)
    # A page has one title: that of the file at its top.
    text = re.sub(r"^#+ ", r"#\g<0>", text, flags=re.MULTILINE) if found.start() else text
    return _on_site(text, name)


def notebook(source: str) -> str:
    """A notebook in the percent format as Markdown: text as it is, code in fences."""
    shown = []
    for cell in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if "[markdown]" in kind:
            shown.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        else:
            shown.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(shown)


def public_names(package: str) -> str:
    """mkdocstrings' directive for each name in the package's `__init__.pyi`."""
    tree = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return "\n\n".join(f"::: {package}.{node.module}.{alias.name}" for node in imports for alias in node.names)


def _on_site(text: str, source: str) -> str:
    """A file's relative links as the site has them; a link to what the site does not have becomes its text."""
    homes = included_in()

    def moved(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        path, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if picture:
            return f"![{label}](pictures/{posixpath.basename(there)})"
        page = posixpath.basename(there) if there.startswith(f"{PAGES}/") else homes.get(there)
        return label if page is None else f"[{label}]({page}{'#' * bool(anchor)}{anchor})"

    return LINK.sub(moved, text)


def included_in() -> dict[str, str]:
    """The page that takes in each file."""
    found = {}
    for page in sorted((ROOT / PAGES).glob("*.md")):
        for kind, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if kind == "include":
                found[name] = page.name
                # A folder's README is what a link to the folder shows.
                found.setdefault(posixpath.dirname(name), page.name)
    return found
