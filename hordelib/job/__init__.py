"""What a job is: its parameters, its model family, the horde's payload, and notes to the client."""
