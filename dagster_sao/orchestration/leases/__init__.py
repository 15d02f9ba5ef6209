"""One writer per relation, across runs and machines."""
