"""The decisions what to build and to test, and why."""
