"""Stable Diffusion, unmodified: loading, sampling, features, evidence for a word.

Nothing is trained here and nothing here depends on stages, shards or classes.
"""
