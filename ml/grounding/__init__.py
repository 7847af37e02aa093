"""The grounding module: masks for words, from the features of a frozen text-to-image model.

Here: the module, its training, the pipeline that draws and labels pictures, the DAAM baseline and
the scores of Protocol I. Not here: the diffusion side (`ml.diffusion`), stages and files
(`ml.pipeline.runner`).
"""
