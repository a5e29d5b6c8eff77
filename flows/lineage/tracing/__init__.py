"""The read side of lineage, `pairflow lineage`: the graph around a reference, and its broken links.

May import its siblings in lineage.
"""
