"""What a card does with Dreamer: one command, minutes, one table."""
