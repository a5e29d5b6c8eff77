"""Ray's client of its job server, of which every call ends."""

from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from pairflow.errors import JobFailedError

_TIMEOUT_S = 60.0
_LONG_TIMEOUT_S = 300.0  # of what is not asked twice, as a job that is submitted: a busy head takes its time


class JobClient(JobSubmissionClient):
    """Ray's own waits for ever for a head that hangs; and a token that lacks is an exception like no other.

    Raises:
        JobFailedError: the cluster wants another token.
    """

    def _do_request(self, method: str, endpoint: str, **named: Any) -> Any:
        named.setdefault("timeout", _TIMEOUT_S if method == "GET" else _LONG_TIMEOUT_S)
        try:
            return super()._do_request(method, endpoint, **named)
        except AuthenticationError as error:
            raise JobFailedError(
                f"the Ray cluster at {self._address} refuses this: {str(error).splitlines()[0]}; give its token in "
                "RAY_AUTH_TOKEN and RAY_AUTH_MODE=token, or unset RAY_ADDRESS to use the cluster of this PAIRFLOW_HOME"
            ) from None
