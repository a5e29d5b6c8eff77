"""The text at the top of a run's page in MLflow, in markdown: where it belongs, what it came from, how to repeat it."""

from collections.abc import Mapping, Sequence

from flows.jobs.protocol import JobContext

_COMMAND = "Command"


def describe(facts: Mapping[str, str], more: str = "") -> str:
    """A list of facts by name; the command in a block of its own; then `more`."""
    lines = [f"- **{name}:** {value}" for name, value in facts.items() if name != _COMMAND and value]
    text = "\n".join(lines)
    if command := facts.get(_COMMAND):
        text += f"\n\nThe command that makes it again:\n\n```\n{command}\n```"
    return f"{text}\n\n{more}".rstrip() + "\n"


def origin(context: JobContext) -> dict[str, str]:
    """Who asked for a run, and what it is a part of."""
    facts = {}
    if context.flow_run_url:
        facts["Prefect"] = f"[flow run]({context.flow_run_url})"
    else:
        facts["Prefect"] = f"flow run {code_span(context.flow_run_id)}"
    if context.submission_id is not None:
        job = code_span(context.submission_id)
        facts["Ray"] = f"[job {context.submission_id}]({context.ray_job_url})" if context.ray_job_url else f"job {job}"
    if context.parent_mlflow_run_id:
        facts["Part of"] = run_link(context.parent_mlflow_run_id, "the comparison")
    if context.command:
        facts[_COMMAND] = context.command
    return facts


def run_link(run_id: str, text: str) -> str:
    """A link to another run of the same MLflow, wherever its server is."""
    return f"[{text}](#/runs/{run_id})"


def code_span(text: str) -> str:
    """Text as it is: no mark-up in it counts."""
    fence = "`"
    while fence in text:
        fence += "`"
    padding = " " if len(fence) > 1 else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def code(version: Mapping[str, str]) -> str:
    """The code's version in words."""
    words = f"pairflow {version['pairflow.version']}"
    if commit := version.get("mlflow.source.git.commit"):
        dirty = version.get("pairflow.git_dirty") == "true"
        words += f", commit {code_span(commit[:12])}" + (", with changes that are not committed" if dirty else "")
    return words


def machine(hardware: Mapping[str, str | int | float]) -> str:
    """A machine in words."""
    words = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"
    return f"{words}, {hardware['gpus']}" if "gpus" in hardware else words


def dataset(name: str, digest: str, profile: Mapping[str, object]) -> str:
    """Data in words: how many rows were kept, and why others were not."""
    words = f"{name}, digest {code_span(digest[:12])}"
    if (kept := profile.get("rows_kept")) is not None:
        words += f", {kept:,} of {profile.get('rows_read', kept):,} rows read are kept"
    if isinstance(dropped := profile.get("dropped"), Mapping) and dropped:
        words += f" (dropped: {', '.join(f'{reason} {count:,}' for reason, count in dropped.items())})"
    return words


def pairs(fingerprint: str, url: str, made_by: str | None) -> str:
    """Pairs in words, with the run that made them."""
    words = f"{code_span(fingerprint[:12])} at {code_span(url)}"
    return words if made_by is None else f"{words}, made by {run_link(made_by, 'this run')}"


def model(model_id: str, made_by: str) -> str:
    """A logged model, with the run that made it."""
    return f"{code_span(model_id)}, made by {run_link(made_by, 'this run')}"


def cost(pairing_seconds: float, training_seconds: float) -> str:
    """Pairing against training on the same machine, which is their ratio of energy as far as time tells it."""
    words = f"training {training_seconds:,.1f} s"
    if not pairing_seconds:
        return words
    ratio = pairing_seconds / training_seconds if training_seconds else float("inf")
    return f"pairing {pairing_seconds:,.1f} s, {words}: a ratio of {ratio:.3g}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A table in markdown."""
    columns = list(rows[0])
    cells = [[str(row[name]).replace("|", "\\|") for name in columns] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
