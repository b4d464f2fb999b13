"""Our few ComfyUI nodes. Their modules import ComfyUI: import them after `hordelib.comfy.boot`."""
