"""`python -m ml.paper`: every study, or one, and the page. See `ml.paper`."""
