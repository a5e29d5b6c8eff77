"""What came from what, kept in MLflow: dataset digest → pairs fingerprint → training run → model → evaluation.

The only importer of mlflow, which reads its environment then: `home.environment.prepare_environment` comes first.
One experiment per dataset; a run per stage, found again by its fingerprint, so that a rerun adds nothing and an
interrupted stage goes on in its own run; a parent run per pipeline or study.
README.md beside this says what holds here, and where to begin.
May import the contracts (`flows.results`), cluster and home, and reads of the store.
"""
