"""Calls over the network, downloads, and what is kept of their answers."""
