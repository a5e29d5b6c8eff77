"""Damaged bytes for every door through which something comes in that others have written.

A few examples a door in `make test`; `PAIRFLOW_FUZZ_EXAMPLES=1000 pytest tests/fuzz` tries as many of each as that.
"""

import os
from datetime import timedelta

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("PAIRFLOW_FUZZ_EXAMPLES", "25")),
    deadline=timedelta(seconds=10),  # a hang counts as a fault
    suppress_health_check=list(HealthCheck),
    derandomize="PAIRFLOW_FUZZ_EXAMPLES" not in os.environ,
    print_blob=True,
)
