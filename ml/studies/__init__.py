"""The paper's questions (arXiv 2301.05221), answered at micro size: `python -m ml.studies`.

What all studies share
    study_run      a run of the studies: its size and folder; things made once, kept by recipe
    sizes          how much of everything: full or quick; `prompt_sets`: which prompts and scenes
    parallel       tasks in several processes
    records        a picture with all that is kept of it; `picture_sets`: sets of them, made once
                   by `picture_makers`, generated or drawn
    specs          what is trained: the pipeline's own module with some settings changed
    training_sets  the pictures of a specification; `modules`: its trained grounding modules;
                   `trainings`: these scored on generated and on drawn pictures
    asking         pictures asked for any words, by several methods
    scores         from raw rows to a figure with spread and interval; `cell_scores`: by cell

One module a study, with what only it needs beside it
    protocol_one   baselines, protocol_one_methods, protocol_one_sheet; OVAM's baselines in
                   queries, query_labels, query_maps
    protocol_three
    zero_shot      segmenter_models, segmenter_data, synthetic_labels, segmenters
    ablations
    limits
    beyond_nouns   relation_scenes, beyond_nouns_rows, beyond_nouns_sheet
    absent_words   absent_questions, absent_methods, absent_rows
    few_labels     few_labels_lessons
    backbones      backbone_rows, backbone_tables, backbone_blocks; ConceptAttention's in
                   concept_maps

From a study to the page
    catalogue      which studies there are, in their order; a study made, or one row of it
    blocks         tables, plots, pictures and paragraphs; `saved`: those of a finished study
    page           docs/results.md and the HTML page; `markdown`, `plots`: their parts
    export         figures and raw tables, small enough for git; `published`: these in a checkout
                   that did not make them

Nothing here is imported by the pipeline's stages.
"""
