"""Distillation: discrete consistency distillation (`dcd.distill`) and rectified flow's pairs (`redi.draw_pairs`).

Above training and sampling: may import all of the library but datasets, coupling and metrics, and none of it imports
this.
"""
