"""Small generated data sets with planted truth, one module per system."""
