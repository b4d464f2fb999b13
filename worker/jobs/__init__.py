"""What is known of every job in hand, in memory and on disk."""
