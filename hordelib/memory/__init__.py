"""What is in memory: the cache of models, loans to the device, estimates, readings."""
