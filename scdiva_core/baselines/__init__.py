"""What the model must be measured against: usual methods, with no part of ScDiVa in them."""
