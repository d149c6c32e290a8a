"""Jobs on clusters: options, submission, and what scale costs."""
