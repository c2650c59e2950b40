"""Checkpoints of segmentation_models.pytorch (SMP) 0.6: what its config.json asks for, its tensors, its folders."""
