"""What goes wrong between PairFlow and MLflow."""

from pairflow.errors import PairFlowError


class LineageError(PairFlowError):
    """MLflow cannot be reached, or does not hold what is asked for."""
