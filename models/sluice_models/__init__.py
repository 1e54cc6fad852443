"""Training, exporting and describing models. It shares nothing with `services` but the SavedModel on disk."""
