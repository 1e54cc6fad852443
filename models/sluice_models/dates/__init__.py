"""An encoder-decoder trained and served in buckets: dates as people write them become ISO 8601 (README.md)."""
