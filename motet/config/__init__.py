"""What a recipe may say, and how it is read. Imports no torch."""

from motet.config.algorithm import DROPOUTS, AlgorithmConfig, KindConfig
from motet.config.load import load_recipe, parse_recipe, to_yaml
from motet.config.sampling import SamplingConfig
from motet.config.schema import (
    DataConfig,
    EvalConfig,
    ExpertConfig,
    LoraConfig,
    OptimizerConfig,
    PolicyConfig,
    Recipe,
    RewardConfig,
    RunConfig,
    TrackConfig,
)

__all__ = [
    "DROPOUTS",
    "AlgorithmConfig",
    "DataConfig",
    "EvalConfig",
    "ExpertConfig",
    "KindConfig",
    "LoraConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "Recipe",
    "RewardConfig",
    "RunConfig",
    "SamplingConfig",
    "TrackConfig",
    "load_recipe",
    "parse_recipe",
    "to_yaml",
]
