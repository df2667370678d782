"""`motet config` and `motet doctor`."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from motet.config import Recipe, load_recipe, to_yaml
from motet.config.stages import is_plan, load_plan
from motet.config.sweep import is_sweep, load_sweep
from motet.core.errors import ConfigError
from motet.core.printable import without_passwords
from motet.report.terminal import say


def show_config(recipe: Path | None, overrides: list[str], keys: bool, scenarios: bool) -> None:
    """Print the resolved recipe, all keys, or the built-in scenarios."""
    if keys:
        from motet.config.keys import explain

        say(*explain(Recipe, _options()).split("\n"))
    elif scenarios:
        from motet.scenarios import built_in_scenarios

        for name, one in built_in_scenarios().items():
            acts = ", ".join(f"{act} ({kind})" for act, kind in one.acts.items())
            options = f"; options: {', '.join(one.options)}" if one.options else ""
            say(f"{name:<18} acts: {acts}; columns: {', '.join(one.columns) or 'none'}{options}")
    elif recipe is None:
        raise ConfigError("No recipe was given.", fix="motet config RECIPE.yaml, or motet config --keys.")
    else:
        say(*without_passwords("\n".join(_resolved(recipe, overrides))).split("\n"), end="")


def _options() -> Iterator[tuple[str, str, FieldInfo]]:
    """The options of all named choices: their keys, the names that they belong to, and their fields."""
    from motet.config.keys import walk
    from motet.config.options import walk_options
    from motet.training.advantage_estimators import ADVANTAGES
    from motet.training.losses import LOSSES

    yield from walk_options()
    for key, known in (("algorithm.advantage", ADVANTAGES), ("algorithm.loss", LOSSES)):
        for name, entry in known.entries.items():
            settings = getattr(entry, "Settings", None)  # a plain function has no options
            for option, field in walk(settings, f"{key}.") if settings is not None else ():
                yield option, name, field


def _resolved(path: Path, overrides: list[str]) -> Iterator[str]:
    """The recipe; or those of a plan's stages; or those of a sweep's strategies under the first seed."""
    if is_sweep(path):
        sweep = load_sweep(path, Path("OUTPUT"), overrides)
        plans = {name: seeds[sweep.seeds[0]] for name, seeds in sweep.plans.items()}
    elif is_plan(path):
        plans = {"": load_plan(path, Path("OUTPUT"), overrides)}
    else:
        yield _checked(load_recipe(path, overrides))
        return
    for strategy, plan in plans.items():
        for stage in plan.stages:
            yield f"# {f'{strategy}: ' if strategy else ''}{stage.name} ({stage.kind})\n{_checked(stage.recipe)}"


def _checked(recipe: Recipe) -> str:
    """The recipe as YAML. Raises ConfigError for options that a loss or an advantage estimator does not have."""
    from motet.training.losses import check_algorithm

    check_algorithm(recipe.algorithm)
    return to_yaml(recipe)


def doctor() -> None:
    """Print versions, devices and extras, and check that a tiny model samples and replays on this machine."""
    import torch

    say(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("torch", "transformers", "tokenizers", "safetensors", "pydantic", "datasets"):
        say(f"{package:<13} {_version(package)}")
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    say(f"gpu           {', '.join(gpus) or 'none: runs on the CPU'}")
    say(f"cpu threads   {torch.get_num_threads()}")
    for package, extra in (("peft", "lora"),):
        state = _version(package) if importlib.util.find_spec(package) else f"missing: pip install 'motet[{extra}]'"
        say(f"{package:<13} {state}")
    if importlib.util.find_spec("torchvision") and torch.version.cuda is None:
        say("torchvision   installed beside a CPU build of torch: transformers' image processors may fail")
    shipped = Path("checkpoints/shapes_janus/config.json")
    say(f"checkpoint    {'found' if shipped.is_file() else 'not found: run from the root of the repository'}")
    say(f"tiny model    {_tiny_model_check()}")


def _tiny_model_check() -> str:
    """Sample from a random model on the device that a run would use, and compare replayed with sampled log-probs."""
    from motet.policies.janus import JanusPolicy
    from motet.policies.loading import choose_device
    from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer

    sizes = TinySizes(hidden=64, layers=2, image=16, vision_hidden=32, vision_layers=1, max_positions=128)
    tokenizer = tiny_tokenizer(["a red circle"], vocab_size=300)
    device = choose_device("auto")
    model: Any = tiny_janus(tokenizer, sizes, seed=0)
    policy = JanusPolicy(model.to(device), tiny_processor(tokenizer, sizes))
    drawn = policy.generate_images("a red circle", n=2)
    acts = [*drawn, *policy.generate_text("what is it?", [drawn[0].image], max_tokens=4)]
    pairs = zip(acts, policy.log_probs(acts), strict=True)
    gap = max(float((act.log_probs - replayed).abs().max()) for act, replayed in pairs if act.log_probs is not None)
    if not gap < 1e-3:
        return f"BROKEN on {device}: sampled and replayed log-probs differ by {gap:.1e}"
    return f"generates images and text on {device}; sampled and replayed log-probs agree within {gap:.0e}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
