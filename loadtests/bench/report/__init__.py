"""What is made of the figures: results, bars, tables and pictures."""
