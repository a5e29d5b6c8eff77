"""The version of every engine, which is part of a coupling's fingerprint: kept apart, so that to know it loads none.

A change of any pair's content needs a new number here; old pairs stay what they are, and new ones are made beside them.
"""

VERSIONS = {"cpu": 1, "cuda": 1, "dense": 1, "assignment": 1}
