"""A few labelled pictures of a user, read for `python -m ml teach`."""
