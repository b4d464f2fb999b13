"""A CUDA card that is not there, for tests of what only a card does."""
