"""The way of a job from pop to delivery: the threads, and in which order they hand it on."""
