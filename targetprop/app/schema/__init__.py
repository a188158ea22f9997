"""What a configuration may say: checked before a run begins, and written down in docs/configuration.md."""
