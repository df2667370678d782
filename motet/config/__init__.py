"""Recipes: their keys, how they are loaded and validated. Imports no torch."""

from motet.config.algorithm import AlgorithmConfig, KindConfig
from motet.config.choice import Choice
from motet.config.load import load_recipe, parse_recipe, to_yaml
from motet.config.sampling import SamplingConfig
from motet.config.schema import (
    DataConfig,
    DiffusionConfig,
    EvalConfig,
    LoraConfig,
    OptimizerConfig,
    PolicyConfig,
    Recipe,
    RewardConfig,
    RewardsSuiteOptions,
    RunConfig,
    SftConfig,
    ShapesSuiteOptions,
    TrackConfig,
)

__all__ = [
    "AlgorithmConfig",
    "Choice",
    "DataConfig",
    "DiffusionConfig",
    "EvalConfig",
    "KindConfig",
    "LoraConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "Recipe",
    "RewardConfig",
    "RewardsSuiteOptions",
    "RunConfig",
    "SamplingConfig",
    "SftConfig",
    "ShapesSuiteOptions",
    "TrackConfig",
    "load_recipe",
    "parse_recipe",
    "to_yaml",
]
