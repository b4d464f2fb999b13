"""The commands of the command line: what they do, what they print, and their exit codes."""
