"""Which devices there are, and which part of the training state lies on which of them."""
