"""The judges of pictures, and what a verdict is."""
