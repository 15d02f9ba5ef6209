"""Explanations: the record of a node or a test, and why it is decided about as it is."""
