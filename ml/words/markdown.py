"""Texts that people typed, in Markdown."""

import re


def escape(text: str) -> str:
    """Plain text that no character of is taken for markdown or HTML, in one line."""
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*_{}\[\]|~$>])", r"\\\1", text)
    text = re.sub(r"^([#+-])", r"\\\1", text)  # at the start of a line: a heading, a list
    return re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", text)
