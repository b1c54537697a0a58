"""One module per step of a release: each looks, compares, acts where something is absent, and says what is next."""
