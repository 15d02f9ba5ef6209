"""What each clause of a query does to what is proven of its rows."""
