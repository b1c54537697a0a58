"""From raw data and a pinned base model to a fine-tuned candidate."""
