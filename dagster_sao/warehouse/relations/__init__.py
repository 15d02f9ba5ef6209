"""Which relations exist, and what their database says of them."""
