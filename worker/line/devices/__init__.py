"""The devices of a worker: which waiting job each of them makes next, and what comes of it."""
