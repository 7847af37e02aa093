"""The settings of a profile: frozen dataclasses, a range beside each field, and the YAML files."""
