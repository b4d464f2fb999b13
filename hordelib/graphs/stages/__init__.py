"""The optional parts of a graph, one pure function each; graphs/build.py applies them in order."""
