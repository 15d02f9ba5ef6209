"""The results of a run: values, and how they are read from its events."""
