"""Reports of a document: Markdown for terminals and pull requests, one HTML file with plots for people to look at."""

from sluice.evaluator.report.html import html
from sluice.evaluator.report.markdown import markdown

__all__ = ["html", "markdown"]
