"""Reading other people's checkpoints, and writing ours in their names: one table of renames a source."""
