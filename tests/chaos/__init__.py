"""The whole graph, killed at random moments and started again until it ends: what is left then?

`make chaos`, or `python -m tests.chaos --help`. Nothing of the program is patched: each run has a
copy of the checkout, which differs in `params.yaml` alone, and is watched from outside.
"""
