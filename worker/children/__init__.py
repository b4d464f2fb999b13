"""Child processes: started, watched and spoken to; and what the engine's and the judge's run."""
