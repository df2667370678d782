"""What a recipe may say, and how it is read. Imports no torch."""

from motet.config.algorithm import DROPOUTS, AlgorithmConfig, KindConfig
from motet.config.load import load_recipe, parse_recipe, to_yaml
from motet.config.schema import (
    DataConfig,
    EvalConfig,
    ExpertConfig,
    ImageSamplingConfig,
    LoraConfig,
    OptimizerConfig,
    PolicyConfig,
    Recipe,
    RewardConfig,
    RunConfig,
    TextSamplingConfig,
    TrackConfig,
)

__all__ = [
    "DROPOUTS",
    "AlgorithmConfig",
    "DataConfig",
    "EvalConfig",
    "ExpertConfig",
    "ImageSamplingConfig",
    "KindConfig",
    "LoraConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "Recipe",
    "RewardConfig",
    "RunConfig",
    "TextSamplingConfig",
    "TrackConfig",
    "load_recipe",
    "parse_recipe",
    "to_yaml",
]
