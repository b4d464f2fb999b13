"""The scribe: texts that the owner's text server writes, asked for, watched and delivered."""
