"""The freshness sensor and the first look of a run: they probe sources, and record what they find."""
