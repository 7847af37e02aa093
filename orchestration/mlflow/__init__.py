"""The model registry: what is tracked, registered, promoted and packed."""
