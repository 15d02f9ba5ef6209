"""Explanations: the record of a node or a test, and the reason for the decision about it."""
