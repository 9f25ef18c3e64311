"""Where pictures and captions come from, and how they become batches."""
