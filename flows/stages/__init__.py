"""One stage of a flow: its Ray job, others beside it, and what follows its end.

May import pages and what is below; flows use it.
"""
