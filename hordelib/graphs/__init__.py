"""From a job's parameters to the graph that ComfyUI runs."""
