"""Where a run's numbers go, in files that go on with the run."""
