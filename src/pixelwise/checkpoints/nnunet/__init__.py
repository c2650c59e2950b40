"""Folders, zip files and checkpoints that nnU-Net v2 leaves behind, read without it and without running a pickle."""
