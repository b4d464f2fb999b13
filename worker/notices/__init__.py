"""What the owner is written to about: seen, told once each, and sent by apprise."""
