"""Decoding: pure score combiners, and searches over one cached loop."""
