"""What to build and to test, and why."""
