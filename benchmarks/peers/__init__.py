"""Programs that do the same work as ours, each in a process of its own.

Modules that run in such a process import nothing of Dreamer but `protocol`; only `ours` does.
"""
