"""Judge a pull request that nobody trusts: what it is, changes and left behind, and who approved it."""
