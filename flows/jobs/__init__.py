"""What runs on the Ray cluster: one entry point per flow, `python -m flows.jobs.pair` and its siblings.

A job reads its request from the store, prints log and progress lines, and writes its result or its error next to
the request (see `flows.cluster.protocol`). It knows nothing of Prefect; it may import
pages and what is below.
"""
