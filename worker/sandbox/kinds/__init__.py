"""The kinds of work beside pictures: one module has the rules of one kind, and its bodies."""
