"""From a network to a file that runs without torch. Every export ends by comparing numbers with its source."""
