"""The state of an environment, as values."""
