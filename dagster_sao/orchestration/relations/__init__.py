"""The watch over the relations of models: whether they exist, their rows and their columns."""
