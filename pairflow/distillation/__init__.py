"""Distillation: discrete consistency distillation (`dcd.distill`) and rectified flow's pairs (`redi.draw_pairs`)."""
