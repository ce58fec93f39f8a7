"""scratch sft: supervised fine-tuning (SFT) with TRL's SFTTrainer.

    scratch sft --config recipes/quickstart/sft.yaml
    scratch sft --config RECIPE --preview       print two samples with their scored tokens, and train nothing
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training sft --config RECIPE

The recipe has TRL's own field names. `trl sft --config RECIPE` runs it too, if the data is in one of TRL's formats.

Data formats, detected by their columns:
    messages, optionally tools                  conversations: [{role, content}, ...]
    prompt, completion                          both text, or both messages
    conversations                               ShareGPT: [{from: human|gpt|system|tool, value}, ...]
    instruction, output, optionally input       Alpaca
    instruction, response, optionally context   Dolly
    question, answer
    text (or dataset_text_field)                plain text
    input_ids, optionally labels                tokens

The loss is computed on the scored tokens: the completion, where there is one (also in Alpaca, Dolly, question and
answer); otherwise all tokens, or only the assistant's answers with assistant_only_loss: true. Samples longer than
max_length are truncated and counted.

The keys that matter most, with their defaults:
    model_name_or_path, output_dir, datasets    required; datasets: [{path: json, data_files: {train: FILE}}]
    max_length: 1024                            tokens in a sample
    packing: false                              pack samples into sequences of max_length, isolated from each other
    learning_rate: 2.0e-5, max_steps, num_train_epochs: 3, per_device_train_batch_size: 8
    use_peft: false                             train a low-rank adapter; lora_target_modules: all-linear, lora_r: 16
    use_dora: false                             train it as DoRA, with a separate magnitude
    load_in_4bit: false                         quantize the base to 4 bits (QLoRA; CUDA device and bitsandbytes)
    save_steps: 500                             training steps between checkpoints, from which a rerun resumes exactly
"""

from training.tuning.dataset_formats import INSTRUCTIONS
from training.tuning.pipeline.recipe import open_stage, parse_recipe, read_recipe


def main(arguments: list[str]) -> None:
    """Run the stage.

    1. Read the recipe; stop if the output is up to date. TRL is imported only after that.
    2. Load the data, detect their format, and convert them to TRL's.
    3. Load the model and its tokenizer.
    4. Build the trainer: it tokenizes, counts truncated samples, and checks that packed samples are isolated.
    5. With --preview, print samples and stop.
    6. Train, resuming from the newest checkpoint; save the model, with its adapter merged in.

    Raises:
        UserError: a mistake in the recipe or the data, before anything is written.
    """
    preview_only = "--preview" in arguments
    arguments = [argument for argument in arguments if argument != "--preview"]
    values, where = read_recipe("sft", arguments, __doc__)
    stage = open_stage("sft", values, where, arguments)
    if not preview_only and stage.is_current():
        return

    from training.tuning.pipeline.datasets import load_splits
    from training.tuning.pipeline.model import load_model
    from training.tuning.pipeline.training import build_trainer, train_and_save
    from training.tuning.sft import ScratchSFTTrainer, preview

    recipe = parse_recipe("sft", values, where)
    splits = load_splits(recipe, INSTRUCTIONS)
    model, tokenizer = load_model(recipe)
    trainer = build_trainer(ScratchSFTTrainer, recipe, splits, model, tokenizer)
    if preview_only:
        preview(trainer)
        return
    train_and_save(stage, recipe, trainer)
