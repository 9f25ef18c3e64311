"""Published checkpoints: for each family one table of names, from theirs to ours."""
