"""Statistics of the gates: pure functions of arrays and counters, with randomness as an argument."""
