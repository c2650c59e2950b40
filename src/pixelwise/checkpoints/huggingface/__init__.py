"""Folders of Hugging Face's transformers: their `config.json` obeyed, their names and preprocessing in the card."""
