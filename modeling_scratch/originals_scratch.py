"""The code that the fast path of generation replaces, and whether a model would still run it.

The decode loop (decoding_scratch.py) computes what modules and functions of the ordinary forward pass would compute,
without calling them. That is right only while each of them is the one that the loop was written after, so all are
compared before every step. A step takes the ordinary pass, which calls everything, if one of these differs:

    functions      a class, a library or a registry has another function (`Originals`)
    modules        one has another class than its place requires, was exchanged, wrapped, compiled or given a `forward`
                   or a hook, or has dropout on (`Replaced`)
    configuration  has another value
    surroundings   a hook on all modules, or a mode of torch that intercepts operations

The loop itself checks its arguments and the cache. It calls embeddings, activation and softcap as the ordinary pass
does; they may be anything. Weights are read when a call of `generate` begins; the next call sees new ones.
"""

import sys
from types import BuiltinFunctionType, ModuleType

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_module
from transformers import masking_utils
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations import sdpa_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

Place = tuple[type | ModuleType, str]  # of a function: where it is looked up, and its name

LIBRARIES: list[Place] = [
    *((nn.Module, name) for name in ("_wrapped_call_impl", "_call_impl")),
    *((cls, name) for cls in (nn.Linear, nn.LayerNorm, nn.Dropout) for name in ("__call__", "forward")),
    *((functional, name) for name in ("linear", "rms_norm", "dropout", "scaled_dot_product_attention")),
    *((cls, name) for cls in (DynamicCache, DynamicLayer) for name in ("update", "get_mask_sizes")),
    (masking_utils, "create_causal_mask"),
    (masking_utils, "sdpa_mask"),
    (sdpa_attention, "sdpa_attention_forward"),
]
GLOBAL_HOOKS = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
EMBEDDINGS = ("model.embed_tokens", "model.embed_positions")


class Originals:
    """The functions that a step replaces, as they were when the file of the model was imported.

    Args:
        name: `__name__` of that file, modeling_scratch.py.
    """

    def __init__(self, name: str):
        network = sys.modules[name]
        norms, linear = (network.ScratchRMSNorm, nn.LayerNorm), (nn.Linear,)
        # The classes that a module may have, by its own name. Any other name is the number of a layer.
        self.layer = (network.ScratchDecoderLayer,)
        self.classes = {
            "model": (network.ScratchModel,),
            "rotary_emb": (network.ScratchRotaryEmbedding,),
            "layers": (nn.ModuleList,),
            "self_attn": (network.ScratchAttention,),
            "mlp": (network.ScratchMLP,),
            "dropout": (nn.Dropout,),
            **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm", "q_norm", "k_norm"), norms),
            **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), linear),
            "lm_head": linear,
        }
        own = {cls for classes in (self.layer, *self.classes.values()) for cls in classes if cls.__module__ == name}
        self.places = LIBRARIES + [
            *((cls, function) for cls in own for function in ("__call__", "forward")),
            (network.ScratchModel, "attention_masks"),
            *((network, function) for function in ("apply_rotary_pos_emb", "rotate_half", "create_causal_mask")),
            *((network, function) for function in ("eager_attention_forward", "repeat_kv")),
            (network, "ALL_ATTENTION_FUNCTIONS"),
        ]
        self.functions = [getattr(owner, function) for owner, function in self.places]
        # Code that came with a checkpoint is imported late, and a library may have been patched before.
        self.patched_before = not all(is_at_home(owner, function) for owner, function in LIBRARIES)

    def are_in_place(self) -> bool:
        """Whether every function is still the original."""
        return (
            not self.patched_before
            and [getattr(owner, name) for owner, name in self.places] == self.functions
            and ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
            and ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is sdpa_mask
            and "eager" not in ALL_ATTENTION_FUNCTIONS
            and ALL_MASK_ATTENTION_FUNCTIONS["eager"] is eager_mask
        )


def is_at_home(owner: type | ModuleType, name: str) -> bool:
    """Whether a function was defined by the library of the class or module that has it, decorators included."""
    if isinstance(owner, type):
        home = next(base for base in owner.__mro__ if name in vars(base)).__module__
    else:
        home = owner.__name__
    function = getattr(owner, name)
    if isinstance(function, BuiltinFunctionType):
        return True
    # Not `__module__`, which functools.wraps copies to the function that it decorates.
    defined = getattr(function, "__globals__", {}).get("__name__", "")
    return defined.partition(".")[0] == home.partition(".")[0]


class Replaced:
    """The modules of a model whose work a step does itself, as they were when a call of `generate` began."""

    def __init__(self, model: PreTrainedModel, originals: Originals):
        self.originals = originals
        named = {
            name: module
            for name, module in model.named_modules(remove_duplicate=False)
            if name.partition(".")[0] in ("model", "lm_head") and not name.startswith(EMBEDDINGS)
        }
        self.expected = all(
            type(module) in originals.classes.get(name.rpartition(".")[2], originals.layer)
            and all(type(weight) is nn.Parameter for weight in module._parameters.values() if weight is not None)
            for name, module in named.items()
        )
        # Compared as whole lists, and no deeper than necessary: a step of a tiny model takes a thousandth of a second.
        self.modules = list(named.values())
        self.classes = list(map(type, self.modules))
        self.attributes = list(map(vars, self.modules))
        self.children = [model._modules, *(module._modules for module in self.modules if module._modules)]
        self.children_before = list(map(dict, self.children))
        self.hooks = [hooks for module in self.modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self.configuration = vars(model.config)
        self.configuration_before = dict(self.configuration)

    def is_changed_by_training(self, own: dict[str, object]) -> bool:
        """Whether a module, by its attributes, computes something else in training: dropout, or no cache."""
        dropout = own.get("p") or self.configuration["attention_dropout"]
        return bool(dropout or own.get("gradient_checkpointing"))

    def are_in_place(self) -> bool:
        """Whether calling the model would run the original code of each module, without dropout and hooks."""
        return (
            self.expected
            and self.originals.are_in_place()
            and list(map(type, self.modules)) == self.classes
            and not any("forward" in own or "_compiled_call_impl" in own for own in self.attributes)
            and not any(own["training"] and self.is_changed_by_training(own) for own in self.attributes)
            and self.children == self.children_before
            and not any(self.hooks)
            and not any(GLOBAL_HOOKS)
            and self.configuration == self.configuration_before
            and not torch._C._len_torch_function_stack()
            and not torch._C._len_torch_dispatch_stack()
        )
