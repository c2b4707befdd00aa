"""Co-simulation of distribution-grid flexibility."""
