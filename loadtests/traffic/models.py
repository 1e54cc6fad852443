"""The models of the load, those of `make demo`, and what their inputs and outputs are called."""

TEMPERATURE, MONTH, FORECAST = "temperature", "temperature", "forecast"
DIGITS, PICTURE, LOGITS = "digits_other", "picture", "logits"
CLASSES = ("0", "1", "2", "3", "4", "5")  # the first logits; behind them is that of "other"
DATES = "dates"
MODELS = (TEMPERATURE, DIGITS, DATES)
# Ways to say "none of these" that need nothing but logits.
METHODS = ("energy", "max_logit", "other")
