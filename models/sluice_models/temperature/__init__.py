"""A univariate recurrent forecaster: next month's sea-surface temperature (README.md)."""
