"""Definitions of what is measured, one file a task; arrays in, numbers out."""
