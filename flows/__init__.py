"""The service: Prefect flows that run Ray jobs over the store and write their lineage to MLflow."""
