"""From a snapshot and history to the injections that nobody meters, and how good they are."""
