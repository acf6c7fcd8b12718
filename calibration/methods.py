"""The names that `--method` takes, apart from what they do: a command's help loads nothing more."""

# "auto" and the keys of `range_choice.METHODS`.
METHODS = ("auto", "minmax", "moving", "percentile", "entropy", "mse")
