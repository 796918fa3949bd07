"""The graph of the model, coloured by a figure of the person's choice."""
