"""A network to a file and back: making, recognising, loading and saving, in our names and in everybody else's."""
