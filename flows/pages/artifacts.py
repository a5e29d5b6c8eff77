"""What a flow run shows on its page in Prefect: progress while it runs, tables and text at the end."""

import base64
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.cluster.protocol import Progress
from flows.home import kept_results
from flows.home.settings import Settings
from flows.lineage import page_address

_SECONDS_BETWEEN_UPDATES = 2.0
_BAR = 20  # characters


class ProgressArtifact:
    """One progress artifact per piece of work, brought up to date every two seconds."""

    def __init__(self) -> None:
        self._ids: dict[str, UUID] = {}
        self._updated = 0.0

    def show(self, progress: Progress) -> None:
        """Shows how far a job is."""
        now = time.monotonic()
        percent = round(100 * progress.done / max(progress.total, 1), 1)
        if progress.description not in self._ids:
            artifact_id = create_progress_artifact(progress=percent, description=bar(progress))
            self._ids[progress.description] = UUID(str(artifact_id))
        elif progress.done < progress.total and now - self._updated < _SECONDS_BETWEEN_UPDATES:
            return
        else:
            update_progress_artifact(
                artifact_id=self._ids[progress.description], progress=percent, description=bar(progress)
            )
        self._updated = now


def bar(progress: Progress) -> str:
    """How far a job is, as a bar and in words: of the number, Prefect's page makes but a text."""
    share = min(max(progress.done / max(progress.total, 1), 0.0), 1.0)
    done = int(share * _BAR)
    return f"`{'█' * done}{'░' * (_BAR - done)}` {share:.0%}\n\n{progress}"


def show_facts(key: str, title: str, facts: Mapping[str, object], *, note: str = "") -> None:
    """A two-column table as markdown, without what is None; one key over many runs becomes a timeline."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None)
    text = f"## {title}\n\n{note}\n\n| | |\n| --- | --- |\n{rows}\n"
    create_markdown_artifact(markdown=text, key=key, description=title)


def show_text(key: str, title: str, markdown: str) -> None:
    """Markdown as it is; one key over many runs becomes a timeline."""
    create_markdown_artifact(markdown=markdown, key=key, description=title)


def show_table(key: str, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """A table, its floats rounded to what a reader can use."""
    table = [{name: _cell(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table=table, key=key, description=title)


def show_settings(run_id: str, preset: str, settings: Sequence[tuple[str, object, str]]) -> None:
    """What was decided for a run: yours first, so that what differs from the preset is read without scrolling."""
    own = sum(whose == "you" for _, _, whose in settings)
    title = f"Settings: {own or 'none'} of yours, the others of the preset {preset}"
    table = [
        {"setting": name, "value": _cell("none" if value is None else value), "from": whose}
        for name, value, whose in settings
    ]
    create_table_artifact(table=table, key=f"settings-{run_id[:13]}", description=title)


def show_pictures(key: str, title: str, pictures: Mapping[str, str]) -> None:
    """Pictures within the page itself, by title and path; a path that this machine does not see is named instead."""
    parts = [f"## {title}"]
    for name, path in pictures.items():
        if (content := kept_results.content(path)) is not None:
            data = base64.b64encode(content).decode("ascii")
            parts.append(f"### {name}\n\n![{name}](data:image/png;base64,{data})")
        else:
            parts.append(f"### {name}\n\n`{path}` on the machine that made it")
    create_markdown_artifact(markdown="\n\n".join(parts), key=key, description=title)


def show_link(key: str, title: str, address: str, text: str) -> None:
    """A link to what Prefect cannot hold, such as a page; `text` is what is read."""
    create_link_artifact(link=address, link_text=text, key=key, description=title)


def mlflow_link(run_id: str | None, experiment_id: str, text: str = "run in MLflow") -> str | None:
    """A run of MLflow as a link where a server shows it, else its id."""
    pages = Settings.read().mlflow_pages
    return f"[{text}]({page_address.run(run_id, experiment_id, pages=pages)})" if run_id and pages else run_id


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|")
