"""What MkDocs does not do by itself, for mkdocs.yml: MathML, links out of this folder, pages made of code and README.

- A page holds `<!-- README: HEADING -->` where that section of README.md belongs, and `<!-- made: NAME -->` where a
  function of `MADE` writes; so nothing is said twice.
- Pages of the repository that are not in docs/ (`PAGES`) are pages of the site, and a link to any other file leads to a
  copy of it under `source/`; so the site needs no forge to be whole.
- Equations are MathML, which browsers draw without a script. `on_post_build` refuses a page that fetches anything.
"""

import inspect
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    ".github/SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "examples/README.md": "examples.md",
}
_FENCED = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")
_MARK = re.compile(r"^<!-- (README|made): (.+?) -->$", flags=re.MULTILINE)
_EQUATION = re.compile(r"^```math\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_FETCHES = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//[^>]*>""")
_texts: dict[str, str] = {}  # of this build: place of a page in the site -> its text


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of elsewhere, and a copy of each file that a page links to."""
    for source, place in PAGES.items():
        if files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=(_ROOT / source).read_text(encoding="utf-8")))
    sources = {place: source for source, place in PAGES.items() if source != "README.md"}
    linked: set[str] = set()
    for file in files.documentation_pages():
        text = _filled(file.content_string, sources.get(file.src_uri, f"docs/{file.src_uri}"), file.src_uri, linked)
        _texts[file.src_uri] = _EQUATION.sub(_drawn, text)
    for path in sorted(linked):
        place, there = _place(path), _ROOT / path
        if there.is_dir():
            within = sorted(f"{path}/{each.name}" for each in there.iterdir() if each.is_file())
            leads = [posixpath.relpath(_place(each), posixpath.dirname(place)) for each in within]
            listed = "".join(f"- [{posixpath.basename(lead)}]({lead})\n" for lead in leads)
            files.append(File.generated(config, place, content=f"# {path}\n\n{listed}"))
        else:
            within = [path]
        for each in within:
            if files.get_file_from_path(_place(each)) is None:
                files.append(File.generated(config, _place(each), abs_src_path=str(_ROOT / each)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The text as `on_files` has filled it."""
    return _texts.get(page.file.src_uri, markdown)


def on_post_build(config: Any) -> None:
    """Every page can be read without a network.

    Raises:
        PluginError: one fetches something.
    """
    for path in Path(config["site_dir"]).rglob("*.html"):
        if found := _FETCHES.search(path.read_text(encoding="utf-8")):
            raise PluginError(f"{path.name} would fetch {found[0]}")


def _filled(text: str, source: str, at: str, linked: set[str]) -> str:
    """A page with what belongs where its marks are; links lead to places of the site, those out of docs/ are noted."""
    parts = _MARK.split(text)
    whole = [_linked(parts[0], source, at, linked)]
    for kind, name, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        whole.append(_linked(_section(name), "README.md", at, linked) if kind == "README" else MADE[name]())
        whole.append(_linked(after, source, at, linked))
    return "".join(whole)


def _linked(text: str, source: str, at: str, linked: set[str]) -> str:
    def led(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if (_ROOT / path).exists() and (_ROOT / path).is_relative_to(_ROOT) and _place(path).startswith("source/"):
            linked.add(path)
        return f"{match[1]}{posixpath.relpath(_place(path), posixpath.dirname(at) or '.')}{match[3]}"

    parts = _FENCED.split(text)
    return "".join(part if number % 2 else _LINK.sub(led, part) for number, part in enumerate(parts))


def _place(path: str) -> str:
    """Where a file or folder of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    there = _ROOT / path
    if path.startswith("docs/") and not there.is_dir():
        return path.removeprefix("docs/")
    return f"source/{path}/index.md" if there.is_dir() else f"source/{path}{'.txt' if path.endswith('.md') else ''}"


def _section(heading: str) -> str:
    """What stands under a heading of README.md, up to the next one; under no heading, what it begins with."""
    parts = re.split(r"^#+ (.+)\n", (_ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    if heading not in found:
        raise PluginError(f"README.md has no heading {heading!r}; it has {', '.join(found)}")
    return found[heading].strip() + "\n"


def _drawn(match: re.Match[str]) -> str:
    """An equation as MathML, its number at the right."""
    (number,) = re.findall(r"\\tag\{([^}]*)\}", match[1])
    written = re.sub(r"\\tag\{[^}]*\}", "", match[1]).strip()
    for known, drawable in ((r"\arg\m", r"\operatorname{arg}\m"), ("{aligned}", "{split}")):
        written = written.replace(known, drawable)
    drawn = convert(written, display="block")
    if unknown := re.search(r"\\[A-Za-z]+|<mi>&</mi>", drawn):
        raise PluginError(f"equation {number}: {unknown[0]} cannot be drawn as MathML")
    return f'<div class="equation" id="eq-{number}">{drawn}<span>({number})</span></div>\n'


def _commands() -> str:
    """The help page of every command, as a terminal of 80 columns shows it."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from flows.command.app import app

    def page(*words: str) -> str:
        shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
        return "```text\n" + "\n".join(line.rstrip() for line in shown.output.strip("\n").splitlines()) + "\n```\n"

    names = get_command(app).commands  # type: ignore[attr-defined]
    return page() + "".join(f"\n## pairflow {name}\n\n{page(name)}" for name in names)


def _settings() -> str:
    """The variables of `Settings`."""
    from flows.home.settings import Settings

    rows = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = getattr(alias, "choices", [f"PAIRFLOW_{name.upper()}"])[0]
        rows.append((f"`{variable}`", _type(field), _default(field), _text(field)))
    return _table(("variable", "type", "default", "what"), rows)


def _parameters() -> str:
    """The fields of every flow's parameters, and then of the specs within them."""
    from flows import parameters

    names = ("Prepare", "Pair", "Train", "Distill", "Evaluate", "Pipeline", "Study", "Retrain")
    models: list[type[BaseModel]] = [getattr(parameters, f"{name}Parameters") for name in names]
    text, within = "", dict[str, type[BaseModel]]()
    for model in models:
        text += f"\n## {model.__name__.removesuffix('Parameters').lower()}\n\n{inspect.getdoc(model)}\n\n"
        text += _fields(model, within)
    text += "\n## Groups\n\nSpecs, or changes to a preset's: what is left out of a change is the preset's.\n"
    names_left = list(within)
    for name in names_left:  # which grows: there are specs within specs
        text += f"\n### {name}\n\n" + _fields(within[name], within)
        names_left += [each for each in within if each not in names_left]
    return text


def _fields(model: type[BaseModel], within: dict[str, type[BaseModel]]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        inner = next((each for each in (field.annotation, *get_args(field.annotation)) if _is_model(each)), None)
        if inner is not None:
            within.setdefault(inner.__name__, inner)
        shown = _type(field) if inner is None else f"[{inner.__name__}](#{inner.__name__.lower()})"
        rows.append((f"`{name}`", shown, "" if inner is not None else _default(field), _text(field)))
    return _table(("field", "type", "default", "what"), rows)


def _is_model(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, BaseModel)


def _type(field: FieldInfo) -> str:
    """A field's type as words: what may be written, without the packages of the names."""
    written = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
    plain = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", written).replace("NoneType", "None")
    choices = re.sub(r"Literal\[([^\]]*)\]", lambda match: match[1].replace("'", "").replace(", ", " | "), plain)
    return choices.replace("|", r"\|")


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None or field.default in (None, "", ()):
        return ""
    value = field.default
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("|", r"\|").replace("<", "&lt;")


def _scores() -> str:
    from pairflow.metrics.labels import LABELS

    rows = [(f"`{name}`", each.text, each.unit, each.direction) for name, each in LABELS.items()]
    return _table(("score", "shown as", "unit", "which is better"), rows)


def _tags() -> str:
    """The names of flows/lineage/tags.py with what is said of each, read off its source."""
    from flows.lineage import tags

    text = ""
    for paragraph in re.split(r"\n\n+", inspect.getsource(tags))[1:]:
        named = re.findall(r'^\w+ = "([^"]+)"(?:  # (.+))?$', paragraph, flags=re.MULTILINE)
        about = re.match(r"# (.+)", paragraph)
        if about is not None and named:
            text += f"\n{about[1]}\n\n" + _table(("tag", "what"), [(f"`{tag}`", said) for tag, said in named])
    return text


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


MADE: dict[str, Callable[[], str]] = {
    "commands": _commands,
    "parameters": _parameters,
    "scores": _scores,
    "settings": _settings,
    "tags": _tags,
}
