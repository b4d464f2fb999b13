"""Stands in for horde_safety where it only counts that it is installed; it judges nothing."""
