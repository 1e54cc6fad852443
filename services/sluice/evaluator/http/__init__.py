"""The evaluator's HTTP door."""
