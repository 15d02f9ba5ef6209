"""The code of Python models: its normal form, what it reads, and the libraries that it imports."""
