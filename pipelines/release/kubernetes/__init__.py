"""A cluster as the target of releases: Argo Rollouts carries out what Git says; nothing here decides anything."""
