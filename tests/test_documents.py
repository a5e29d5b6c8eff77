"""Documents: links lead somewhere, and what the code cites of docs/method.md is there."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

_ROOT = Path(__file__).parents[1]
_FOLDERS = (".github", "benchmarks", "deploy", "docs", "examples", "flows", "pairflow", "storage", "tests")
_PAGES = sorted([*_ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in (_ROOT / folder).rglob("*.md"))])
_SOURCES = sorted(path for folder in _FOLDERS for path in (_ROOT / folder).rglob("*.py"))
_METHOD = _ROOT / "docs" / "method.md"

_FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
# Ours have a dot and parentheses, "Eq. (2.6)"; a paper's are "Eq. 12".
_EQUATION = re.compile(r"Eqs?\.\s+\(([^)]*)\)")
_SECTION = re.compile(r"method\.md(?:\]\([^)]*\))?,?\s+§(\d+)(?:\s*(?:and|to|,|–)\s*§(\d+))?")


def _name(path: Path) -> str:
    return str(path.relative_to(_ROOT))


def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page: lower case, no punctuation, hyphens, repeats numbered."""
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*$", _FENCE.sub("", page.read_text()), flags=re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


def _broken(page: Path) -> list[str]:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / unquote(place)).resolve() if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert _broken(page) == []


def test_broken_links_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A: `b` (c)\n\n## A b c\n\n[1](#a-b-c) [2](#a-b-c-1) [3](page.md#a-b-c) [4](https://x.org/y#z)\n"
        "[5](#a-b) [6](nowhere.md) [7](page.md#d)\n\n```\n# d\n[8](nowhere.md)\n```\n"
    )
    assert _broken(page) == ["#a-b", "nowhere.md", "page.md#d"]


def _sections() -> dict[str, str]:
    """Number of each section of docs/method.md -> its text."""
    parts = re.split(r"^## (\d+)\. ", _METHOD.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _equations() -> list[str]:
    return re.findall(r"\\tag\{([^}]*)\}", _METHOD.read_text())


def _cited(pattern: re.Pattern[str], paths: list[Path]) -> dict[str, set[str]]:
    """What is cited -> the files that cite it."""
    cited: dict[str, set[str]] = {}
    for path in paths:
        for match in pattern.finditer(path.read_text()):
            for number in filter(None, match.groups()):
                cited.setdefault(number, set()).add(_name(path))
    return cited


_CITING = [path for path in [*_PAGES, *_SOURCES, _ROOT / "pyproject.toml"] if path != Path(__file__)]


def test_sections_and_equations_are_numbered_in_order() -> None:
    sections = _sections()
    assert list(sections) == [str(number) for number in range(1, len(sections) + 1)]
    for number, text in sections.items():
        tags = re.findall(r"\\tag\{([^}]*)\}", text)
        assert tags == [f"{number}.{k}" for k in range(1, len(tags) + 1)]


def test_what_is_cited_of_the_method_is_there() -> None:
    sections, equations = _cited(_SECTION, _CITING), _cited(_EQUATION, _CITING)
    assert len(sections) > 5
    assert len(equations) > 30
    assert {number: files for number, files in sections.items() if number not in _sections()} == {}
    assert {number: files for number, files in equations.items() if number not in _equations()} == {}


def test_the_method_is_cited_by_its_place_in_the_repository() -> None:
    """`method.md` alone, in a docstring or comment, does not say where it is."""
    assert [_name(path) for path in _SOURCES if re.search(r"(?<!docs/)\bmethod\.md", path.read_text())] == [
        _name(Path(__file__))
    ]


def test_every_equation_is_named_where_the_library_computes_it() -> None:
    """But for Eq. (7.4), the limit of many rows a block, which nothing computes yet."""
    library = [path for path in _SOURCES if path.is_relative_to(_ROOT / "pairflow")]
    planned = {"7.4"}
    assert sorted(set(_equations()) - planned - set(_cited(_EQUATION, library))) == []


def test_tests_that_the_method_names_are_there() -> None:
    named = re.findall(r"`(?:tests/pairflow/)?(test_\w+\.py)`", _sections()["8"])
    assert len(named) > 5
    assert [name for name in named if not (_ROOT / "tests" / "pairflow" / name).is_file()] == []
