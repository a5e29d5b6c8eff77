"""Ray: a cluster that is found or started, jobs on it, and what flow and job say to each other.

May import home.
"""
