"""Nested facts of a stage (`Output.facts`), or its settings, as one level, by their path."""


def flatten(facts: dict, prefix: str = "") -> dict[str, object]:
    """Nested facts as one level: {"a": {"b": 1}} -> {"a/b": 1}."""
    return {prefix + "/".join(path): value for path, value in paths(facts).items()}


def full_names(settings: dict) -> dict[str, object]:
    """Nested settings by their full names: {"a": {"b": 1}} -> {"a.b": 1}."""
    return {".".join(path): value for path, value in paths(settings).items()}


def paths(facts: dict, *prefix: str) -> dict[tuple[str, ...], object]:
    """Nested facts by their path: {"a": {"b": 1}} -> {("a", "b"): 1}; a name may hold a slash."""
    flat: dict[tuple[str, ...], object] = {}
    for key, value in facts.items():
        path = (*prefix, str(key))
        flat |= paths(value, *path) if isinstance(value, dict) else {path: value}
    return flat
