"""When a new model replaces the champion: what is compared, how it is judged, what is said.

May import pages and what is below; the flow `retrain` uses it.
"""
