"""What is on disk, and how it survives a kill: files, shards, manifests, locks."""
