"""Rewards of your own: plain functions with TRL's signature."""

import asyncio

import numpy as np

COLOURS = {"red": (219, 58, 52), "yellow": (247, 196, 31), "green": (52, 162, 84), "blue": (47, 111, 222)}


def names_the_colour(prompts, completions, answer, **columns):
    """1 if the text says the row's answer, minus a little for every extra word; `answer` is a column of the data."""
    scores = []
    for completion, gold in zip(completions, answer, strict=True):
        words = completion[-1]["content"].lower().split()  # the last message; its text is a plain string
        scores.append(float(gold in words) - 0.01 * max(0, len(words) - 10))
    return scores


async def colourful(completions, answer, **columns):
    """The fraction of the image with the requested colour.

    Async: several such rewards wait for their servers at once.
    """
    await asyncio.sleep(0)  # here you would call a service
    images = [completion[-1]["content"][0]["image"] for completion in completions]  # PIL images
    return [fraction(image, gold) for image, gold in zip(images, answer, strict=True)]


def fraction(image, colour):
    """The fraction of pixels that are close to a colour."""
    distance = np.asarray(image.convert("RGB"), float) - COLOURS[colour]
    return float(((distance**2).sum(axis=-1) < 80**2).mean())
