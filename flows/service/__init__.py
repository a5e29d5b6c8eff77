"""`pairflow up`: the servers on one machine, under a supervisor, and what Prefect is told about our flows.

`programs` says what runs and how, `supervision` has supervisord run it, `health` asks it how it is, `registration`
tells Prefect of pool, deployments and automations, and `flows/command/service.py` is the command line over
them. May import cluster and home.
"""
