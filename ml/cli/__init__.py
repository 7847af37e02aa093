"""Commands beside the stages: `python -m ml plan | init | audit`."""
