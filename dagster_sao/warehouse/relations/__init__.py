"""The relations that exist, and what their database reports about them."""
