"""ScDiVa Explorer's science: model, data, diffusion, training, tasks, figures. No user interface."""
