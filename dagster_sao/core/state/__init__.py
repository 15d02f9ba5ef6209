"""What happened so far, as values."""
