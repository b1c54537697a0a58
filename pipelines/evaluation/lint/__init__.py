"""Holds every declared file against the others, before anything expensive starts."""
