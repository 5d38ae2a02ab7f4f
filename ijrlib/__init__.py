"""Executable companion to *Implicit Jacobian regularization weighted with impurity of probability
output* (Lee, Park, Lee).

One module per concept; see ``chapters/api.md`` for the map.  Importing the package imports none of
them, and so neither torch nor matplotlib.
"""

__version__ = "0.1.0"
