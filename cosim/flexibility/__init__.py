"""Storage model, threshold rule, and the sizing of its thresholds."""
