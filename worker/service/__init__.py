"""One running worker: how it is built, told what to do and shown to its owner; its state folder."""
