"""Everything that imports ComfyUI: its start, its executor, its memory hooks, loaders and nodes."""
