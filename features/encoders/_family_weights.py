"""From a checkpoint's tensors to a transformers model of the encoder alone, with every tensor accounted for.

`from_pretrained` fills what a checkpoint lacks with random numbers and leaves out what it does not know, and only logs it: a
token of such a model is noise that looks like a token. Here both are errors. Its renaming of older checkpoints is used.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from features.encoders._checkpoint import Checkpoint
from vjepa_loc.errors import WeightsError


@dataclass(frozen=True)
class TensorNames:
    """Which tensors of a family's checkpoints are the encoder's.

    `encoder` matches from the start of such a name; its group `name` is the name in the encoder alone, the same whether the
    checkpoint is of the bare model or of one with a head. `others` matches heads, decoders and text towers, which are never read.
    """

    encoder: str
    others: str

    def read(self, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
        """The encoder's tensors.

        Raises WeightsError where there are none, or one that belongs to no known part or is there twice.
        """
        encoder, others = re.compile(self.encoder), re.compile(self.others)
        unknown: list[str] = []
        seen: set[str] = set()

        def name_in_encoder(name: str) -> str | None:
            if match := encoder.match(name):
                short = match["name"]
                if short in seen:
                    raise WeightsError(
                        f"encoder.weights: {checkpoint.weights}: expected {short} once, found it twice; "
                        f"download the checkpoint again"
                    )
                seen.add(short)
                return short
            if not others.match(name):
                unknown.append(name)
            return None

        tensors = checkpoint.tensors(name_in_encoder)
        if unknown:
            raise WeightsError(
                f"encoder.weights: {checkpoint.weights}: {len(unknown)} of its tensors belong to no known part of such a model, "
                f"first {min(unknown)}; choose a checkpoint in the layout of transformers"
            )
        if wrong := sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point()):
            raise WeightsError(
                f"encoder.weights: {checkpoint.weights}: {wrong[0]}: expected floating-point numbers, found {tensors[wrong[0]].dtype}; "
                f"choose a checkpoint that is not quantised"
            )
        if not tensors:
            raise WeightsError(
                f"encoder.weights: {checkpoint.weights}: expected an encoder's tensors, found none; choose another checkpoint"
            )
        return tensors


def build_model(
    model_class: type, model_config: Any, tensors: dict[str, torch.Tensor], dtype: torch.dtype, weights: str, **options: Any
) -> torch.nn.Module:
    """The transformers model with exactly these tensors, in evaluation mode, without gradients; `options` go to its constructor.

    Raises WeightsError in one line where a tensor is missing, unknown or of another shape than the configuration says.
    """
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                None, config=model_config, state_dict=dict(tensors), dtype=dtype, output_loading_info=True,
                ignore_mismatched_sizes=True, **options,
            )
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"encoder.weights: {weights}: config.json describes no model that can be built ({reason})") from None
    problems = [f"{name}: missing" for name in report["missing_keys"]]
    problems += [f"{name}: not in the architecture" for name in report["unexpected_keys"]]
    problems += [f"{name}: expected {tuple(wanted)}, found {tuple(found)}" for name, found, wanted in report["mismatched_keys"]]
    problems += [" ".join(str(message).split())[:200] for message in report["error_msgs"]]
    if problems:
        raise WeightsError(
            f"encoder.weights: {weights}: {len(problems)} encoder tensors do not fit config.json; {min(problems)}; "
            f"download the checkpoint again"
        )
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its progress bar and its load report, which `build_model` turns into errors."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
