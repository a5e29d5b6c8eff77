"""The command line, `pairflow`: a file a noun, over the flows.

The top of the house: it may import every other room, and none imports it.
"""
