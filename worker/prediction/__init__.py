"""How many seconds a job will take on this machine."""
