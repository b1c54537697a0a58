"""What the gateway adds to a request, beside LiteLLM's proxy, a bare aiohttp proxy and nginx, in the same run."""
