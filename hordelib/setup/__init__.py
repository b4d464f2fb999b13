"""ComfyUI and Python packages on disk; standard library only, as it runs before they are there."""
