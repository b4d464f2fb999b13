"""What a model's file says of itself, and how files are written whole."""
