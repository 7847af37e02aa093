"""Stable Diffusion, used as it is: loading, sampling, features, evidence for a word.

Nothing is trained here and nothing here knows of stages, shards or classes.
"""
