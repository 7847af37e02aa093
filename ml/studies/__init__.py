"""The paper's questions (arXiv 2301.05221), answered at micro size: `python -m ml.studies`.

    plan       how much of everything, which prompts and scenes
    lab        where things are kept, what is made once, the processes
    pictures   the pictures that all studies share, generated and drawn
    trainings  a grounding module by its specification: trained, and scored on everything
    <study>    one module a study: what it compares, and its tables
    studies    which there are, in their order, and a run of one
    saved      what a finished study left for the page, as JSON
    page       docs/results.md and the HTML page; markdown, plots: their parts
    export     figures and raw tables, small enough for git

Nothing here is imported by the pipeline's stages.
"""
