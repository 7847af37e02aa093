"""Class names, vocabularies and prompts, and finding the words of a class in a text."""
