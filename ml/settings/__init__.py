"""What a profile says: frozen dataclasses with a range beside each field, and its YAML files."""
