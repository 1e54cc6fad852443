"""`sluice evaluate`: a data set through a gateway by the evaluator's engine, what was found printed and written."""
