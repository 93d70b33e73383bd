"""What a user asks of the model; every task takes and returns AnnData or plain arrays."""
