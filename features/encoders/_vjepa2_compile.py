"""Whether and how the layers of V-JEPA 2 are compiled.

One function, `run_layer`, is compiled, with fixed shapes: it serves all layers, so that a shape costs one compilation of one
layer (and not of 24), and a later batch of the same shape none. It is a chain of matrix products and attention between which
only element-wise work is fused; both ways round at the same places, and differ by the order of float32 sums.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Literal

import torch
import torch.compiler.config

from features.encoders._vjepa2_model import run_layer
from vjepa_loc.errors import ConfigError

Compile = Literal["auto", "on", "off"]
# Far more grids than the videos of one store have: past it, torch would raise instead of running uncompiled.
MOST_SHAPES = 250
# Two threads that meet a shape at the same time would both compile it; and torch, asked by two threads at once which graph fits,
# now and then finds none and compiles a known shape again, until the limit ends the run. One lock for all encoders: they
# share the function whose graphs are looked up.
_ONE_AT_A_TIME = threading.Lock()


class LayerRunner:
    """Runs layers of full clips compiled, others as they are. `compiled` says which way full clips go.

    `auto` compiles on a GPU, and says in one line on stderr where nothing can be compiled (no compiler, no Triton); `on`
    raises ConfigError there. What goes wrong later is raised, never replaced by another way of computing. Threads take turns in
    compiled layers: a GPU has one thread, and several on a CPU gain nothing from `on`.
    """

    def __init__(self, choice: Compile, device: torch.device):
        self.compiled = choice == "on" or (choice == "auto" and device.type == "cuda")
        if self.compiled and (reason := _cannot_compile(device)):
            if choice == "on":
                raise ConfigError(f"encoder.compile: 'on' is not possible on {device} here ({reason}); use auto or off")
            print(f"vjepa2: nothing can be compiled for {device} here ({reason}); running without compilation", file=sys.stderr, flush=True)
            self.compiled = False
        # `isolate_recompiles`: another encoder of this process does not count against the limit.
        self._run = torch.compile(
            run_layer, fullgraph=True, dynamic=False, recompile_limit=MOST_SHAPES, isolate_recompiles=True
        ) if self.compiled else run_layer

    def of(self, is_full_clip: bool) -> Callable:
        """What runs a layer of such a clip."""
        return self._compiled if self.compiled and is_full_clip else run_layer

    def _compiled(self, x_BNC: torch.Tensor, table_4NP: torch.Tensor, *others) -> torch.Tensor:
        with _ONE_AT_A_TIME:
            return self._run(x_BNC, table_4NP, *others)


def _cannot_compile(device: torch.device) -> str:
    """Why a kernel cannot be compiled and run on `device`; "" where it can. Tried on a small one: seconds at most."""
    # Kernels are compiled by a sub-process; nothing is forked from this one, which may have threads.
    os.environ.setdefault("TORCHINDUCTOR_WORKER_START", "subprocess")
    try:
        # Without caches: what an earlier process compiled says nothing about this one.
        probe = torch.compile(lambda x: (x + 1).sin() * x, fullgraph=True, dynamic=False)
        with warnings.catch_warnings(), torch.no_grad(), torch.compiler.config.patch(force_disable_caches=True):
            # torch says that caches are off.
            warnings.simplefilter("ignore")
            probe(torch.ones(1024, device=device))
    except Exception as error:
        # torch has many classes for a missing compiler; whatever stops the probe stops the encoder.
        return " ".join(str(error).split())[:120] or type(error).__name__
    return ""
