"""Addresses of MLflow's pages, all of them made here: they open its machine-learning view, not the one on agents.

A page of a server begins with the server's address; without it, an address leads from one page of MLflow to another.
"""

VIEW = "pairflow"
"""Name of the view of an experiment that has the scores as columns; see `flows.lineage.score_table`."""
_MODE = "workflowType=machine_learning"  # without it every page opens in the mode for agents, which hides ours


def experiment(experiment_id: str, *, pages: str = "") -> str:
    """The table of an experiment's scores, a row a model."""
    return f"{pages}{'/' if pages else ''}#/experiments/{experiment_id}/runs?{_MODE}&viewStateShareKey={VIEW}"


def run(run_id: str, experiment_id: str, *, pages: str = "", artifact: str = "") -> str:
    """The page of a run, or of one of its artifacts."""
    begin = f"{pages}{'/' if pages else ''}#"
    if not experiment_id:  # as of a result that another release kept: MLflow finds it, and drops the mode
        return f"{begin}/runs/{run_id}"
    tab = f"/artifacts/{artifact}" if artifact else ""
    return f"{begin}/experiments/{experiment_id}/runs/{run_id}{tab}?{_MODE}"
