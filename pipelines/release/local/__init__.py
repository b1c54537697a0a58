"""A release on this machine: model processes, a gateway in front of them, replayed traffic, and faults on request."""
