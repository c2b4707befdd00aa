"""Analysis of results: resampling that respects energy and power, key figures with units. Pure functions on pandas."""
