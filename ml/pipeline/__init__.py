"""The pipeline: a table of stages and what runs one of them."""
