"""A result as one HTML page: what was asked, what came out, and how to make it again."""
