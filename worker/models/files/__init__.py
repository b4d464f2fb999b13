"""Files of models: what there is on disk, what a model needs, and how they come and go."""
