"""Records that all rooms speak: frozen, values only, arrays read-only, units in the names."""
