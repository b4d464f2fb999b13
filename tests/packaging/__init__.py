"""The packages that are released: what is in them, and that they work on their own."""
