"""From a picture to logits and from logits to labels; nothing here knows a network."""
