"""What is written to Dagster's event log: the words, the masking, and writing in bulk."""
