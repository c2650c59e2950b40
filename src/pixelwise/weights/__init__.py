"""What a set of weights is (card), where it lies (store) and how foreign ones are read (convert)."""
