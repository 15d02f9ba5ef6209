"""The freshness sensor: probes sources, watches relations, and records what it finds."""
