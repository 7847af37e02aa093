"""Class names, vocabularies, prompts: whose word stands where in a text."""
