"""Writing to Dagster's event log: the vocabulary, the records, the masking, and writing in bulk."""
