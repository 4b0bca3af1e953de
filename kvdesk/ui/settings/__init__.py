"""The settings of model and context, priced while they are edited."""
