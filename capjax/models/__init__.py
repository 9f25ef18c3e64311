"""Flax linen modules, one idea a file; each public model module offers `Model`."""
