"""The site has every document and module, and a remark of its builder fails it."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python/lmcore"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/site/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass looks itself up
    spec.loader.exec_module(module)
    return module


build, docstrings, pictures = load("build"), load("docstrings"), load("pictures")


# Pictures.


def test_pictures_are_those_that_are_drawn() -> None:
    """`python docs/site/pictures.py` writes them; each kernel with a section has one."""
    kernels = (ROOT / "docs/kernels.md").read_text(encoding="utf-8")
    for name in re.findall(r"^### (\w+)$", kernels, re.MULTILINE):
        assert f"](pictures/{name}.svg)" in kernels
    found = {path.stem: path.read_text(encoding="utf-8") for path in pictures.OUT.glob("*.svg")}
    assert found == {name: pictures.draw(each) for name, each in pictures.PICTURES.items()}


# Navigation.


def test_every_document_has_one_place() -> None:
    documents = build.list_documents()
    assert {"README.md", "docs/ner.md", "docs/papers/gner.md", "benches/README.md"} <= set(
        documents
    )
    placed = [path for paths in build.expand_navigation(documents).values() for path in paths]
    assert sorted([*placed, "README.md"]) == documents
    with pytest.raises(ValueError, match=r"once: \['docs/other.md'\]"):
        build.expand_navigation([*documents, "docs/other.md"])


def test_a_document_stands_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NAVIGATION", {**build.NAVIGATION, "Again": ["docs/ner.md"]})
    with pytest.raises(ValueError, match="must stand in NAVIGATION, once"):
        build.expand_navigation(build.list_documents())


def test_every_public_package_has_pages() -> None:
    pages = build.list_modules()
    packages = {f"lmcore.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert set(pages) == packages - {"lmcore.cli", "lmcore.kernels"}
    assert pages["lmcore.ner"] == ["lmcore.ner"]
    assert "lmcore.ops.matching" in pages["lmcore.ops"]
    assert not any(name.rpartition(".")[2].startswith("_") for m in pages.values() for name in m)


def test_a_package_in_a_package_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/__init__.py", "a/c.py", "a/_d.py", "a/b/__init__.py", "a/b/e.py", "cli/f.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(build, "PACKAGE", tmp_path)
    assert build.list_modules() == {"lmcore.a": ["lmcore.a.b", "lmcore.a.c"]}
    init = tmp_path / "a/__init__.py"
    init.write_text('__all__ = ["World"]')
    assert build.list_modules() == {"lmcore.a": ["lmcore.a", "lmcore.a.b", "lmcore.a.c"]}
    init.write_text('from lmcore.a.c import World\n__all__ = ["World"]')
    assert build.list_modules() == {"lmcore.a": ["lmcore.a"]}


def test_names_of_a_page(tmp_path: Path) -> None:
    build.copy_package(tmp_path)
    names = build.list_names(["lmcore.ner", "lmcore.ops.lcs", "lmcore.ops.tuning"], tmp_path)
    # What a module takes from a kernel stands on its page.
    assert "lmcore.ops.tuning.pin" in names["lmcore.ops.tuning"]
    assert names["lmcore.ops.lcs"] == [
        "lmcore.ops.lcs",
        "lmcore.ops.lcs.longest_common_subsequence",
    ]
    assert {"lmcore.ner", "lmcore.ner.Entity", "lmcore.ner.score"} <= set(names["lmcore.ner"])


# Documents.


@pytest.mark.parametrize(
    ("text", "converted"),
    [
        ("`lmcore.ner.score`, ", "[`lmcore.ner.score`][lmcore.ner.score], "),
        ("`lmcore.ner.hide`", "`lmcore.ner.hide`"),
        ("[`lmcore.ner.score`](ner.md)", "[`lmcore.ner.score`](ner.md)"),
        ("```\n`lmcore.ner.score` [a](b.py)\n```\n", "```\n`lmcore.ner.score` [a](b.py)\n```\n"),
        ("[a](examples/ner.py) [b](LICENSE)", "[a](examples/ner.py.md) [b](LICENSE.md)"),
        ("[a](ner.md#x) [b](#x) ![c](d.svg)", "[a](ner.md#x) [b](#x) ![c](d.svg)"),
        ("[a](https://example.org/b)", "[a](https://example.org/b)"),
    ],
)  # fmt: skip
def test_documents_are_converted(text: str, converted: str) -> None:
    assert build.convert(text, {"lmcore.ner.score"}) == converted


def test_source_has_what_documents_link_to(tmp_path: Path) -> None:
    build.write_source(tmp_path, {"lmcore.ops.lcs": [], "lmcore.reference.lcs": []})
    for path in ("benches/results/lcs_growth.svg", "LICENSE.md", "style.css"):
        assert (tmp_path / path).is_file()
    assert "```python\n" in (tmp_path / "examples/ner.py.md").read_text(encoding="utf-8")
    definition, op = (tmp_path / f"api/lmcore.{f}.lcs.md" for f in ("reference", "ops"))
    assert "show_source: true" in definition.read_text(encoding="utf-8")
    assert "show_source: false" in op.read_text(encoding="utf-8")


# Docstrings.


PAIRS = """
from typing import NamedTuple

class Pair:
    '''Two words.

    Example:
        >>> Pair()
        Pair()
    '''

    first: str
    '''The word
    of the input.'''
    _own: int
    '''Ours.'''
    second: str

    def __post_init__(self) -> None:
        '''Raises.'''

class Counts(NamedTuple):
    '''How many.

    Attributes:
        gold: of the labels.
    '''

    gold: int
    both: int = 0

    @property
    def share(self) -> float:
        '''Of the gold ones.'''
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Any:
    (tmp_path / "pairs.py").write_text(PAIRS)
    extensions = griffe.load_extensions(docstrings.Sections())
    return griffe.load("pairs", search_paths=[tmp_path], extensions=extensions)


def sections_of(found: Any) -> dict[str, Any]:
    return {section.kind.value: section.value for section in found.docstring.parse("google")}


def test_examples_and_fields_are_sections(pairs: Any) -> None:
    pair = pairs["Pair"]
    sections = sections_of(pair)
    assert list(sections) == ["text", "examples", "attributes"]
    (field,) = sections["attributes"]
    assert (field.name, field.description) == ("first", "The word\nof the input.")
    assert pair["first"].docstring is None
    assert pair["_own"].docstring is not None
    assert not pair["__post_init__"].is_public


def test_a_named_tuple_says_what_it_is_made_of(pairs: Any) -> None:
    counts = pairs["Counts"]
    assert [(p.name, p.default) for p in counts.parameters][-2:] == [("gold", None), ("both", "0")]
    fields = sections_of(counts)["attributes"]
    assert sorted(field.name for field in fields) == ["gold", "share"]


# The build.


def make_site(folder: Path, page: str, code: str = '"""A module."""\n') -> None:
    (folder / "source").mkdir()
    (folder / "source/README.md").write_text(page)
    (folder / "module.py").write_text(code)
    settings: dict[str, Any] = build.configure([{"lmcore": "README.md"}])
    settings["plugins"][2]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(folder)]
    (folder / "mkdocs.yml").write_text(json.dumps({**settings, "extra_css": []}))


@pytest.mark.parametrize(
    ("page", "code", "remark"),
    [
        ("# A\n\n[b](#a)\n\n::: module\n", '"""A module."""\n', None),
        ("# A\n\n[b](other.md)\n", "", "page does not exist"),
        ("# A\n\n[b](#other)\n", "", "anchor does not exist"),
        ("# A\n\n[`b`][module.other]\n\n::: module\n", '"""A module."""\n', "unresolved autoref"),
        (
            "::: module\n",
            'def f(a: int) -> None:\n    """Does.\n\n    Args:\n        b: one.\n    """\n',
            "'b' does not appear",
        ),
    ],
)
def test_a_remark_fails_the_build(tmp_path: Path, page: str, code: str, remark: str | None) -> None:
    make_site(tmp_path, page, code)
    lines = build.run_zensical(tmp_path)
    if remark is None:
        assert lines == []
        html = (tmp_path / "html/index.html").read_text(encoding="utf-8")
        assert 'id="module"' in html
        fetched = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', html)
        assert fetched == [], "a page needs no other machine"
    else:
        assert remark in "\n".join(lines)
        assert "\x1b" not in "".join(lines)


def test_a_name_that_its_page_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api/m.html").write_text('<h2 id="m.a">')
    assert build.find_absent(tmp_path, {"m": ["m.a", "m.b"]}) == ["m.b"]


def test_main_fails_on_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "OUT", tmp_path / "site")
    monkeypatch.setattr(build, "list_modules", dict)
    monkeypatch.setattr(build, "run_zensical", lambda folder: ["griffe: a remark"])
    assert build.main() == 1
    assert capsys.readouterr().out == "griffe: a remark\n"
