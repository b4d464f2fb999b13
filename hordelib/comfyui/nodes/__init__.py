"""Our few ComfyUI nodes; their modules import ComfyUI, so import them after `boot.boot`."""
