"""A run: what it decides, what it builds, and what it records."""
