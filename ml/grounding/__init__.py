"""The grounding module: masks for words, from the features of a frozen text-to-image model.

Here: the module, its training, and the pipeline that draws and labels pictures. Not here: the
diffusion side (`ml.diffusion`), attention baselines (`ml.baselines`), scores (`ml.metrics`),
stages and files (`ml.pipeline`).
"""
