"""Evaluations: a data set sent through a gateway, values for each row, metrics, a report; meets it on the wire only."""
