"""The horde's API: its types, its client, what its refusals mean, and kudos."""
