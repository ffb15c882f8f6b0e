"""Builds the site of the documents and the docstrings: `make docs`.

A copy of the documents, laid out as in the repository, gets a page for each public module, and
zensical makes HTML of both. Whatever it or the reader of the docstrings remarks is an error.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PACKAGE = ROOT / "python/lmcore"
OUT = ROOT / "site"

# Every document stands here; those of a folder in the order of the alphabet.
NAVIGATION = {
    "Guides": [
        "docs/ner.md",
        "docs/openba.md",
        "docs/compression.md",
        "docs/detox.md",
        "docs/diffusion.md",
        "docs/recsys.md",
    ],
    "Results": ["docs/claims.md", "docs/speed.md", "docs/results/README.md"],
    "From paper to code": ["docs/papers/*.md"],
    "Why and how": [
        "docs/design.md",
        "docs/compare.md",
        "docs/architecture.md",
        "docs/security.md",
        "docs/log.md",
        "docs/kernels.md",
        "kernels/README.md",
    ],
    "Development": ["CONTRIBUTING.md", "benches/README.md", "CHANGELOG.md"],
}
# Packages that have no page: the command line, kernels without documents.
UNDOCUMENTED = {"cli", "kernels"}
# Where the source is what one wants to read.
WITH_SOURCE = "reference"

MARKDOWN = {
    "attr_list": {},
    "sane_lists": {},
    "tables": {},
    "toc": {"permalink": True},
    "pymdownx.highlight": {"pygments_lang_class": True},
    "pymdownx.inlinehilite": {},
    "pymdownx.superfences": {},
}
DOCSTRINGS = {
    "docstring_section_style": "list",
    "docstring_style": "google",
    "extensions": [f"{HERE / 'docstrings.py'}:Sections"],
    "filters": "public",
    "heading_level": 1,
    "line_length": 80,
    "members_order": "source",
    "merge_init_into_class": True,
    "separate_signature": True,
    "show_root_full_path": True,
    "show_root_heading": True,
    "show_signature_annotations": True,
    "show_source": False,
    "show_symbol_type_heading": True,
    "signature_crossrefs": True,
}

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
_CODE = re.compile(r"(?<![\[`])`(lmcore(?:\.\w+)+)`(?![\]`])")


def list_documents() -> list[str]:
    """Returns the paths of all documents, from the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[!.]*/README.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def expand_navigation(documents: Iterable[str]) -> dict[str, list[str]]:
    """Returns the documents under each heading; each of them must stand there once."""
    expanded = {
        heading: [path for pattern in patterns for path in _matching(pattern, documents)]
        for heading, patterns in NAVIGATION.items()
    }
    listed = [path for paths in expanded.values() for path in paths]
    missing = sorted({*documents} - {*listed, "README.md"})
    if missing or len(listed) != len(set(listed)):
        raise ValueError(f"documents must stand in NAVIGATION, once: {missing or listed}")
    return expanded


def list_modules() -> dict[str, list[str]]:
    """Returns the modules that get a page, by package.

    A package that gathers names of its modules has one page; another one has a page per module,
    and one of its own if it offers something (`__all__`).
    """
    pages: dict[str, list[str]] = {}
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        if folder.name in UNDOCUMENTED:
            continue
        name = f"lmcore.{folder.name}"
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        pages[name] = [name] if "__all__" in text else []
        if f"from {name}." not in text:
            modules = [path.stem for path in folder.glob("[!_]*.py")]
            modules += [path.parent.name for path in folder.glob("[!_]*/__init__.py")]
            pages[name] += [f"{name}.{module}" for module in sorted(modules)]
    return pages


def copy_package(folder: Path) -> None:
    """Copies the package to where griffe reads it.

    There `kernels` has the `__init__.py` that it must not have in a checkout: griffe takes a folder
    without one for no part of a package, and would not find what modules take from it.
    """
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(PACKAGE, folder / "lmcore", ignore=ignored)
    _write(folder / "lmcore/kernels/__init__.py", "")


def list_names(modules: Iterable[str], folder: Path) -> dict[str, list[str]]:
    """Returns what the page of each module describes: the module, and public names in it.

    A constant has a place there if something is said of it.

    Args:
        modules: their names.
        folder: that of `copy_package`.
    """
    package = griffe.load("lmcore", search_paths=[folder])
    names = {}
    for module in modules:
        members = package[module.removeprefix("lmcore.")].members.values()
        public = [member for member in members if member.is_public and not member.is_module]
        shown = [m.name for m in public if m.docstring or not m.is_attribute]
        names[module] = [module, *(f"{module}.{name}" for name in shown)]
    return names


def convert(text: str, names: set[str]) -> str:
    """Returns a document for the site: names of the library become links to their pages.

    A link to a file that is no document leads to a page that shows the file.
    """
    parts = []
    end = 0
    for block in _BLOCK.finditer(text):
        parts += [_convert_prose(text[end : block.start()], names), block[0]]
        end = block.end()
    return "".join([*parts, _convert_prose(text[end:], names)])


def list_targets(text: str) -> list[str]:
    """Returns the files that a document links to."""
    return _LINK.findall(_BLOCK.sub("", text))


def write_source(folder: Path, names: dict[str, list[str]]) -> None:
    """Writes the documents, and a page for each module, into a folder."""
    known = {name for described in names.values() for name in described}
    for document in list_documents():
        text = (ROOT / document).read_text(encoding="utf-8")
        _write(folder / document, convert(text, known))
        for target in list_targets(text):
            path = (ROOT / document).parent / target
            _copy_target(path.resolve(), folder)
    for module in names:
        source = module.startswith(f"lmcore.{WITH_SOURCE}.")
        options = f"    options:\n      show_source: {str(source).lower()}\n"
        _write(folder / f"api/{module}.md", f"::: {module}\n{options}")
    shutil.copy(HERE / "style.css", folder)


def make_navigation(pages: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Returns headings and pages as they stand at the left of the site."""
    guides = expand_navigation(list_documents()).items()
    return [
        {"lmcore": "README.md"},
        *({heading: paths} for heading, paths in guides),
        {"Modules": [_list_pages(package, modules) for package, modules in pages.items()]},
    ]


def configure(navigation: Any) -> dict[str, Any]:
    """Returns zensical's settings."""
    return {
        "site_name": "lmcore",
        "site_description": "Six published systems as one library",
        "docs_dir": "source",
        "site_dir": "html",
        "use_directory_urls": False,
        "nav": navigation,
        "extra_css": ["style.css"],
        "markdown_extensions": [{name: options} for name, options in MARKDOWN.items()],
        "plugins": [
            "search",
            "autorefs",
            {
                "mkdocstrings": {
                    "handlers": {"python": {"paths": [str(OUT / "package")], "options": DOCSTRINGS}}
                }
            },
        ],
        "theme": {
            "name": "material",
            "font": False,  # nothing is fetched from elsewhere
            "features": ["content.code.copy", "navigation.sections", "navigation.top"],
            "palette": [
                {
                    "media": "(prefers-color-scheme: light)",
                    "scheme": "default",
                    "toggle": {"icon": "lucide/sun", "name": "Dark"},
                },
                {
                    "media": "(prefers-color-scheme: dark)",
                    "scheme": "slate",
                    "toggle": {"icon": "lucide/moon", "name": "Light"},
                },
            ],
        },
    }


def run_zensical(folder: Path) -> list[str]:
    """Builds the site of a folder with `mkdocs.yml`, and returns what is wrong with it."""
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", "mkdocs.yml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    lines = _COLOUR.sub("", done.stdout.partition("Traceback")[0]).splitlines()
    if done.returncode == 0:  # remarks about docstrings do not count as its own
        lines = [line for line in lines if line.startswith("griffe: ")]
    return lines


def find_absent(folder: Path, names: dict[str, list[str]]) -> list[str]:
    """Returns the names that their page does not describe."""
    absent = []
    for module, described in names.items():
        page = (folder / f"api/{module}.html").read_text(encoding="utf-8")
        absent += [name for name in described if f'id="{name}"' not in page]
    return absent


def main() -> int:
    """Builds the site and returns the exit code."""
    shutil.rmtree(OUT, ignore_errors=True)
    copy_package(OUT / "package")
    pages = list_modules()
    modules = [module for modules in pages.values() for module in modules]
    names = list_names(modules, OUT / "package")
    write_source(OUT / "source", names)
    _write(OUT / "mkdocs.yml", json.dumps(configure(make_navigation(pages)), indent=2))
    wrong = run_zensical(OUT)
    wrong = wrong or [f"not on its page: {name}" for name in find_absent(OUT / "html", names)]
    print(*(wrong or [f"{(OUT / 'html/index.html').relative_to(ROOT)} is there"]), sep="\n")
    return int(bool(wrong))


def _matching(pattern: str, documents: Iterable[str]) -> list[str]:
    folder = Path(pattern).parent
    return [p for p in sorted(documents) if Path(p).parent == folder and Path(p).match(pattern)]


def _convert_prose(text: str, names: set[str]) -> str:
    text = _LINK.sub(lambda link: link[1] + ("" if _is_page(link[1]) else ".md"), text)
    return _CODE.sub(lambda name: f"[{name[0]}][{name[1]}]" if name[1] in names else name[0], text)


def _is_page(target: str) -> bool:
    return Path(target).suffix in (".md", ".svg")


def _copy_target(path: Path, folder: Path) -> None:
    name = path.relative_to(ROOT)
    if path.suffix == ".md":
        return
    if _is_page(path.name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)
    else:
        language = "python" if path.suffix == ".py" else "text"
        text = path.read_text(encoding="utf-8")
        _write(folder / f"{name}.md", f"# {name}\n\n```{language}\n{text}```\n")


def _list_pages(package: str, modules: list[str]) -> dict[str, Any]:
    if modules == [package]:
        return {package: f"api/{package}.md"}
    return {package: [{name.rpartition(".")[2]: f"api/{name}.md"} for name in modules]}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
