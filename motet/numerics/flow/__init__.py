"""Flow matching as a policy: schedules, stochastic steps, windows, penalties, and the losses made for them.

A flow takes noise (sigma 1) to a picture (sigma 0) along `dx = v dsigma`; `motet.numerics.flow.path` has the notation.
"""
