"""Programs of the tests that run for minutes or hours: soak, fuzz, mutants, figures of the house."""
