"""Pictures: curves, grids of samples, paths, the look of a coupling.

The one room that draws, by matplotlib, PIL and RDKit; may import what pages may.
"""
