"""The grounding module: masks for words, from the features of a frozen text-to-image model.

Users come in by `pipeline`, in the manner of diffusers; stages and studies use `engine`, arrays in
batches. Below both: the module and its training, what a word or a picture may be, and saved
folders. Not here: the diffusion side (`ml.diffusion`), attention baselines (`ml.baselines`), scores
(`ml.metrics`), stages and files (`ml.pipeline`).
"""
