"""The benchmark `tune`: which settings suit this machine, and how they are set."""
