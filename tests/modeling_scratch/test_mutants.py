"""The model's tests notice silent mistakes: each of these defects leaves a network that runs, trains and generates.

transformers' own shared tests (`tests/conformance`) pass with many of them.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from fork_server import fork_server

ROOT = Path(__file__).parents[2]
PACKAGE = "modeling_scratch"


class Mutant(NamedTuple):
    name: str
    old: str
    new: str
    killed_by: str  # a test, as `file::function`
    file: str = "modeling_scratch.py"


MUTANTS = [
    Mutant(
        "attention scaling ignored",
        "            scaling=self.scaling,\n",
        "            scaling=1.0,\n",
        "test_presets.py::test_llama_preset_is_llama",
    ),
    Mutant(
        "attention scaling ignored by the written-out attention",
        "query @ key.transpose(2, 3) * scaling",
        "query @ key.transpose(2, 3) * query.shape[-1] ** -0.25",
        "test_modeling.py::test_eager_equals_sdpa",
    ),
    Mutant(
        "RoPE base hard-coded",
        'config.rope_parameters["rope_theta"] ** -exponents',
        "10000.0 ** -exponents",
        "test_presets.py::test_llama_preset_is_llama",
    ),
    Mutant(
        "RoPE angles in the network's precision",
        "position_ids[..., None].float() * self.inv_freq.to(x.device, torch.float)",
        "position_ids[..., None].to(x.dtype) * self.inv_freq.to(x.device, x.dtype)",
        "test_presets.py::test_low_precision_is_llamas_to_the_bit_at_far_positions",
    ),
    Mutant(
        "RoPE pairs neighbouring coordinates",
        "    first, second = x.chunk(2, dim=-1)\n    return torch.cat((-second, first), dim=-1)",
        "    first, second = x[..., ::2], x[..., 1::2]\n    return torch.stack((-second, first), dim=-1).flatten(-2)",
        "test_presets.py::test_llama_preset_is_llama",
    ),
    Mutant(
        "RoPE scaling does not sharpen the attention",
        "(angles.cos() * self.attention_scaling).to(x.dtype), (angles.sin() * self.attention_scaling).to(x.dtype)",
        "angles.cos().to(x.dtype), angles.sin().to(x.dtype)",
        "test_presets.py::test_rope_scaling_is_llamas",
    ),
    Mutant(
        "RoPE frequencies saved with the weights",
        "self.inv_freq = nn.Buffer(inv_freq, persistent=False)",
        "self.inv_freq = nn.Buffer(inv_freq)",
        "test_modeling.py::test_loads_what_was_saved_to_the_bit",
    ),
    Mutant(
        "RoPE frequencies not refilled after loading",
        "super()._init_weights(module)  #",
        "PreTrainedModel._init_weights(self, module) if len(list(module.parameters())) else None  #",
        "test_modeling.py::test_loads_what_was_saved_to_the_bit",
    ),
    Mutant(
        "norm not in fp32",
        "nn.functional.rms_norm(hidden_states.float(), self.weight.shape, eps=self.eps)",
        "hidden_states * torch.rsqrt(hidden_states.square().mean(-1, keepdim=True) + self.eps)",
        "test_presets.py::test_low_precision_is_llamas_to_the_bit_at_far_positions",
    ),
    Mutant(
        "norm rounds after the gain",
        "return self.weight.to(hidden_states.dtype) * normed.to(hidden_states.dtype)",
        "return (self.weight.float() * normed).to(hidden_states.dtype)",
        "test_presets.py::test_low_precision_is_llamas_to_the_bit_at_far_positions",
    ),
    Mutant(
        "norm_eps ignored",
        "self.weight.shape, eps=self.eps)",
        "self.weight.shape, eps=1e-6)",
        "test_presets.py::test_llama_preset_is_llama",
    ),
    Mutant(
        "keys normalised with the gain of queries",
        "self.q_norm(query), self.k_norm(key)",
        "self.q_norm(query), self.q_norm(key)",
        "test_presets.py::test_qwen3_preset_is_qwen3",
    ),
    Mutant(
        "default positions start at 0 after a cache",
        "past_length = past_key_values.get_seq_length() if past_key_values is not None else 0",
        "past_length = 0",
        "test_modeling.py::test_cached_equals_uncached",
    ),
    Mutant(
        "key heads shared by the wrong query heads",
        "x.repeat_interleave(groups, dim=1)",
        "x.repeat(1, groups, 1, 1)",
        "test_presets.py::test_llama_preset_is_llama",
    ),
    Mutant(
        "keywords do not reach the attention",
        "            sliding_window=self.sliding_window,\n            **kwargs,\n",
        "            sliding_window=self.sliding_window,\n",
        "test_modeling.py::test_keywords_reach_the_attention_implementation",
    ),
    Mutant(
        "keywords do not reach the loss",
        "vocab_size=self.config.vocab_size, **kwargs)",
        "vocab_size=self.config.vocab_size)",
        "test_modeling.py::test_loss_honours_ignored_labels_and_a_given_count",
    ),
    Mutant(
        "packed documents see one another",
        '            "position_ids": position_ids,\n        }',
        "        }",
        "test_rows.py::test_packed_documents_do_not_see_one_another",
    ),
    Mutant(
        "every layer has full attention",
        "attention_mask=masks[self.config.layer_types[index]]",
        'attention_mask=masks["full_attention"]',
        "test_presets.py::test_sliding_window_is_mistrals_and_qwen3s",
    ),
    Mutant(
        "tied keys missing",
        '_tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}',
        "_tied_weights_keys = None",
        "test_modeling.py::test_tied_matrices_are_one_parameter_that_trains_as_one",
    ),
    Mutant(
        "padding has a gradient",
        "nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)",
        "nn.Embedding(config.vocab_size, config.hidden_size)",
        "test_presets.py::test_padding_is_llamas",
    ),
    Mutant(
        "softcap ignored",
        "return logits if cap is None else cap * torch.tanh(logits / cap)",
        "return logits",
        "test_modeling.py::test_softcap_bounds_the_logits",
    ),
    Mutant(
        "attention dropout outside of training",
        "dropout=self.config.attention_dropout if self.training else 0.0",
        "dropout=self.config.attention_dropout",
        "test_modeling.py::test_dropout_acts_only_in_training",
    ),
    Mutant(
        "no dropout after the MLP",
        "hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))",
        "hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))",
        "test_modeling.py::test_hidden_dropout_reaches_everything_that_enters_the_residual_stream",
    ),
    Mutant(
        "projections start as large as other matrices",
        "config.initializer_range / (2 * config.num_hidden_layers) ** 0.5",
        "config.initializer_range",
        "test_modeling.py::test_projections_into_the_residual_stream_start_smaller",
    ),
    Mutant(
        "layers may be split over devices",
        '_no_split_modules = ["ScratchDecoderLayer"]',
        "_no_split_modules = None",
        "test_modeling.py::test_layers_are_named_as_the_unit_that_must_not_be_split",
    ),
    Mutant(
        "a plan for tensor parallelism names modules that are not there",
        "if not name.endswith(absent)",
        "if name",
        "test_modeling.py::test_tensor_parallel_plan_names_the_modules_that_there_are",
        "configuration_scratch.py",
    ),
    Mutant(
        "the classifier's loss counted once for each accumulation step",
        "accepts_loss_kwargs = False\n",
        "accepts_loss_kwargs = True\n",
        "test_heads.py::test_a_classifier_scores_the_last_token",
    ),
    Mutant(
        "ignored labels have a gradient",
        "total.masked_fill(ignored, torch.inf)",
        "total",
        "test_loss.py::test_loss_and_gradients_are_those_of_the_logits",
        "loss_scratch.py",
    ),
    Mutant(
        "softcap without its slope",
        "scores *= slope",
        "pass",
        "test_loss.py::test_loss_and_gradients_are_those_of_the_logits",
        "loss_scratch.py",
    ),
    Mutant(
        "the loss without logits is always a mean",
        "(targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch",
        "(targets != IGNORE_INDEX).sum()",
        "test_loss.py::test_loss_and_gradients_are_those_of_the_logits",
        "loss_scratch.py",
    ),
    Mutant(
        "attention scaling ignored by the decode loop",
        "scale=self.attention.scaling,",
        "scale=1.0,",
        "test_decoding.py::test_logits_and_cache_are_the_ordinary_ones",
        "decoding_scratch.py",
    ),
    Mutant(
        "the decode loop attends to padding",
        "mask = attention_mask[:, None, None].bool() if padded else None",
        "mask = None",
        "test_decoding.py::test_logits_and_cache_are_the_ordinary_ones",
        "decoding_scratch.py",
    ),
    Mutant(
        "the decode loop leaves out the softcap",
        "logits = self.model.softcap(logits.unsqueeze(1))",
        "logits = logits.unsqueeze(1)",
        "test_decoding.py::test_logits_and_cache_are_the_ordinary_ones",
        "decoding_scratch.py",
    ),
]


def run_tests(folder: Path, tests: list[str]):
    """Run tests on the package in `folder`, in a new process; write `report.xml` and `output.txt` there."""
    with (folder / "output.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take longer to start than the tests to run
    sys.path.insert(0, str(folder))
    import modeling_scratch

    assert Path(modeling_scratch.__file__).is_relative_to(folder)
    command = ["-x", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--noconftest", "--rootdir", str(ROOT)]
    code = pytest.main(
        [*command, f"--junitxml={folder / 'report.xml'}", *(str(Path(__file__).parent / test) for test in tests)]
    )
    sys.exit(int(code))


@pytest.fixture(scope="module")
def failures():
    """A function that runs tests on a copy of the package and returns the messages of failures."""

    def run(folder: Path, tests: list[str]) -> list[str]:
        process = processes.Process(target=run_tests, args=(folder, tests))
        process.start()
        process.join()
        assert process.exitcode in (0, 1), (folder / "output.txt").read_text()
        report = ElementTree.parse(folder / "report.xml")
        assert not list(report.iter("skipped")) and next(report.iter("testcase"), None) is not None
        return [mark.get("message") for tag in ("failure", "error") for mark in report.iter(tag)]

    # Its processes start with the heavy libraries, and without the package.
    with fork_server("pytest", "torch", "transformers.modeling_utils", "transformers.generation") as processes:
        yield run


def test_the_copy_without_a_defect_passes(failures, tmp_path):
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE)
    assert failures(tmp_path, list(dict.fromkeys(mutant.killed_by for mutant in MUTANTS))) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_defect_is_noticed(mutant, failures, tmp_path):
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE)
    source = tmp_path / PACKAGE / mutant.file
    text = source.read_text()
    assert text.count(mutant.old) == 1, f"the text that '{mutant.name}' replaces must occur once in {mutant.file}"
    source.write_text(text.replace(mutant.old, mutant.new))
    messages = failures(tmp_path, [mutant.killed_by])
    assert messages, f"{mutant.killed_by} passes with the defect '{mutant.name}'"
    assert messages[0].startswith(("AssertionError", "assert ")), messages[0]
