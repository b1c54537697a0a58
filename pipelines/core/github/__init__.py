"""GitHub as a job meets it: the runner's outputs and annotations, the event that started it, and the REST API."""
