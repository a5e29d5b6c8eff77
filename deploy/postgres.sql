-- Run once by the image, when its volume is new; Prefect's database is the image's own POSTGRES_DB.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE DATABASE pairflow_mlflow OWNER pairflow;
