"""The denoisers of text-to-image models behind one protocol: U-Nets and diffusion transformers.

`protocol.py` says what is asked of each, `kinds.py` is the table of them; outside this folder
nothing asks which kind a model is.
"""
