"""What a dataset is worth, and its source and budgets: facts, and verdicts on them."""
