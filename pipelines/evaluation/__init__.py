"""From answers to a verdict: metrics per row, gates over intervals, a report people can trust."""
