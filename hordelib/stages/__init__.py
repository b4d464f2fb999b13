"""The optional parts of a graph, one pure function each; workflows.py applies them in order."""
