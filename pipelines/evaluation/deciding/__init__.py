"""The parts of a verdict: pairs of rows, checks, slices, and the sentences that explain them."""
