"""This machine's side: settings, PAIRFLOW_HOME, addresses, token, locks.

The bottom of the house: it imports the library alone.
"""
