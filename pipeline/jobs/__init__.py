"""What lets a job be killed and resumed: journal, locks, checks of what is stored, publication."""
