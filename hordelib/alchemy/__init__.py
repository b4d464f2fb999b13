"""What alchemy makes of one picture: facts, colours, vectors, and other pictures."""
