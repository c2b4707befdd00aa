"""Truth to measurements: errors, delays, faults, replay; and back to synchronised snapshots."""
