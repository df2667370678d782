"""Flow matching as a policy: schedules, stochastic steps, windows of steps, and penalties.

A flow turns noise (sigma 1) into an image (sigma 0) along `dx = v dsigma`; `motet.numerics.flow.path` has the notation.
"""
