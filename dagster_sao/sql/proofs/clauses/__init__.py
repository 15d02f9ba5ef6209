"""How each clause of a query changes what is proven about its rows."""
