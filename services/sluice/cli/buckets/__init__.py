"""`sluice buckets`: which lengths came, what padding them costs, and which bounds would cost less."""
