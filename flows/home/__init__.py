"""This machine's side: settings, PAIRFLOW_HOME, addresses, token, locks, and what a path or REF means.

The bottom of the house: it imports the library alone.
"""
