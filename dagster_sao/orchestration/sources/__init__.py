"""The freshness sensor: what the warehouse says of sources and relations, recorded."""
