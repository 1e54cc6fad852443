"""Every method that says "none of these", side by side."""
