"""A profile and a vocabulary for words of one's own."""
