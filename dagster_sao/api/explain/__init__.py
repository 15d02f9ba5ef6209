"""What is recorded of a node or a test, and why."""
