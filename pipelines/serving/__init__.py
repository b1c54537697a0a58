"""The gateway: one OpenAI-compatible door for every model, as `serving.yaml` says; it never imports torch."""
