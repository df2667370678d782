import numpy as np


def length(completions, **kw):
    return [float(len(c[-1]["content"])) for c in completions]


def redness(completions, **kw):
    images = [c[-1]["content"][0]["image"].convert("RGB") for c in completions]
    return [float(np.asarray(image, float)[..., 0].mean()) for image in images]
