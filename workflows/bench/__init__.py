"""What the engine costs: against the bare model, in the journal, at scale."""
