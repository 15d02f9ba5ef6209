"""One module for each way to detect new data in a source."""
