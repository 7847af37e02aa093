"""What `ml export` writes: the synthetic set, or photographs labelled by a model of the profile."""
