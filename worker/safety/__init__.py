"""Which pictures may leave the worker, and what goes in the place of those that may not."""
