"""The alchemist: the horde's forms over pictures, offered, popped, done and delivered."""
