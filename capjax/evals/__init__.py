"""Evaluators: each module offers `Evaluator(model=..., tokenizer=..., ...).run(params)`."""
