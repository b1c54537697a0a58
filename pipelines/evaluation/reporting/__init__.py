"""The parts of a report: what changed, rows side by side, plots, and the two pages that show them."""
