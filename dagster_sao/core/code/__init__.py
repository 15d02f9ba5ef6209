"""What a node's code is and what it reads, so that a change can be named."""
