"""The text at the top of a run's page in MLflow, in markdown: where it belongs, what it came from, how to repeat it."""

import shlex
from collections.abc import Mapping, Sequence

from flows.cluster.protocol import JobContext
from flows.home.token import SIGN_IN
from flows.lineage import page_address
from flows.lineage import tags as tag
from flows.lineage.provenance import Input

_COMMAND = "Command"
_LINE = 100  # characters
# MLflow's page shows five lines or so until it is asked for more.
_LAST = ("Part of", "Prefect", "Ray", "Code", "Machine", "Used")


def describe(lines: Mapping[str, str], first: str = "") -> str:
    """`first`; lines by name, what a run is about before where it ran; the command in a block of its own."""
    names = [name for name in lines if name not in (*_LAST, _COMMAND)] + [name for name in _LAST if name in lines]
    parts = [first, "\n".join(f"- **{name}:** {lines[name]}" for name in names if lines[name])]
    if command := lines.get(_COMMAND):
        parts.append(f"The command that makes it again:\n\n```\n{_in_lines(command)}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _in_lines(command: str) -> str:
    """A command line as it can be pasted into a shell, an option a line if it is long."""
    if len(command) <= _LINE:
        return command
    lines: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(shlex.join(line) for line in lines)


def origin(context: JobContext) -> dict[str, str]:
    """Who asked for a run, and what it is a part of."""
    lines = {}
    if context.flow_run_url:
        lines["Prefect"] = f"[flow run]({context.flow_run_url})"
    else:
        lines["Prefect"] = f"flow run {code_span(context.flow_run_id)}"
    if context.submission_id is not None:
        job = code_span(context.submission_id)
        link = f"[job {context.submission_id}]({context.ray_job_url}), {SIGN_IN}"
        lines["Ray"] = link if context.ray_job_url else f"job {job}"
    if context.parent_mlflow_run_id:
        lines["Part of"] = run_link(
            context.parent_mlflow_run_id, "the comparison", context.parent_mlflow_experiment_id or ""
        )
    if context.command:
        lines[_COMMAND] = context.command
    return lines


def run_link(run_id: str, text: str, experiment_id: str) -> str:
    """A link to another run of the same MLflow, wherever its server is."""
    return f"[{text}]({page_address.run(run_id, experiment_id)})"


def code_span(text: str) -> str:
    """Text as it is: no mark-up in it counts."""
    fence = "`"
    while fence in text:
        fence += "`"
    padding = " " if len(fence) > 1 else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def code(version: Mapping[str, str]) -> str:
    """The code's version in words."""
    words = f"pairflow {version[tag.VERSION]}"
    if commit := version.get(tag.GIT_COMMIT):
        dirty = version.get(tag.GIT_DIRTY) == "true"
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


def used(inputs: Sequence[Input], model_id: str | None) -> dict[str, str]:
    """What a run used: data, pairs (which have a URL) and a logged model."""
    lines: dict[str, str] = {}
    for each in inputs:
        if "url" in each.source:
            name, words = "Pairs", pairs(each.digest, each.source["url"], None)
        else:
            name, words = "Data", dataset(each.name, each.digest, each.profile)
        lines[name] = f"{lines[name]}; {words}" if name in lines else words  # a comparison has several couplings
    if model_id is not None:
        lines["Model"] = code_span(model_id)
    return lines


def pairs(fingerprint: str, url: str, made_by: str | None, experiment_id: str = "") -> str:
    """Pairs in words, with the run that made them."""
    # The URL is long, and a page cuts a long line off.
    words = code_span(fingerprint[:12]) + (
        "" if made_by is None else f", made by {run_link(made_by, 'this run', experiment_id)}"
    )
    return f"{words}, at {code_span(url)}"


def model(model_id: str, run_id: str, experiment_id: str, kind: str) -> str:
    """The text of a logged model's page: where it comes from, and how to have samples of it, of this kind of data."""
    ending = {"molecules": "smi", "images": "png"}.get(kind, "npy")
    return (
        f"Made by {run_link(run_id, 'this run', experiment_id)}, whose page says of what. "
        "Samples of it, in Python:\n\n```\n"
        f'model = mlflow.pyfunc.load_model("models:/{model_id}")\n'
        'model.predict({"n": 8, "steps": 4, "seed": 0})\n'
        "```\n\nand in a shell:\n\n```\n"
        f"pairflow sample --model {model_id} -n 8 --steps 4 --out samples.{ending}\n"
        "```\n"
    )


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
