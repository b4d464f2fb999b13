"""What we use of ComfyUI 0.3.75, typed by us; it comes without types."""
