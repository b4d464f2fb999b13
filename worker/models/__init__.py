"""Which models are offered: chosen, downloaded, verified, watched, and fitted to memory."""
