"""Prompts, and two ways to have them answered: a local model in batches, or any OpenAI-compatible endpoint."""
