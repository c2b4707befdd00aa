"""Storage and the threshold rule with its sizing; flexible devices, what they can offer, and how awards are divided."""
