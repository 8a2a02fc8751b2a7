"""What several test suites share: servers on loopback and tiny models."""
