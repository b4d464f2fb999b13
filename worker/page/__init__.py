"""The page on which an owner watches and changes the running worker in a browser."""
