"""How a model is spoken to and how it answers: its chat template, and thoughts told from answers. Pure."""
