"""What is optimised: each module offers `Task(model=...)` with `init` and `loss`."""
