"""Pure functions from arrays to plotly figures."""
