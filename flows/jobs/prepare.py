"""The prepare job: `python -m flows.jobs.prepare` on the Ray cluster."""

import sys
import time

from flows.cluster.protocol import JobContext, main
from flows.home.settings import Settings
from flows.jobs import inputs, prepared_data
from flows.requests import PrepareRequest
from flows.results import PrepareResult


def run(request: PrepareRequest, context: JobContext) -> PrepareResult:
    """Finds the rows in the store, or prepares and keeps them.

    Raises:
        DatasetError: the data cannot be had.
        StoreError: the store cannot be read or written.
    """
    started = time.perf_counter()
    data, was_there = inputs.prepare(
        request.dataset, Settings.read(), format=request.format, num_workers=request.num_workers
    )
    found = prepared_data.as_result(data.url, data.whole.report.source, data.whole.report.notes)
    return found.model_copy(update={"skipped": was_there, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    sys.exit(main(PrepareRequest, run))
