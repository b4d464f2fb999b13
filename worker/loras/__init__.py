"""LoRAs and textual inversions: found at CivitAI, downloaded, and kept on disk."""
