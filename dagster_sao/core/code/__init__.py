"""The code of a node in named parts, and the values that it reads, so that a change can be named."""
