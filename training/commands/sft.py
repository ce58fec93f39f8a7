"""Supervised fine-tuning with TRL's SFTTrainer: scratch sft --config recipes/quickstart/sft.yaml

    scratch sft --config RECIPE --preview       shows two samples as they will be seen, and trains nothing
    accelerate launch --config_file recipes/accelerate/ddp.yaml -m training sft --config RECIPE

The recipe has TRL's own field names, and `trl sft --config` runs the same file where its data have a shape of TRL's.

What the data may be, told by their columns:
    messages                                    a conversation: [{role, content}, ...]
    prompt, completion                          both text, or both messages
    conversations                               ShareGPT: [{from: human|gpt|system|tool, value}, ...]
    instruction, output, perhaps input          alpaca
    instruction, response, perhaps context      Dolly
    question, answer
    text (or dataset_text_field)                plain text, all of it learned
    input_ids, perhaps labels                   tokens

What is learned: of prompt and completion (and alpaca, Dolly, question and answer) the completion; of messages and
ShareGPT every word, unless assistant_only_loss is true. Samples longer than max_length are cut, and counted.

The keys that matter most, with their defaults:
    model_name_or_path, output_dir, datasets    required; datasets: [{path: json, data_files: {train: FILE}}]
    max_length: 1024                            tokens of a sample
    packing: false                              fill rows of max_length with samples that do not see one another
    learning_rate: 2.0e-5, max_steps, num_train_epochs: 3, per_device_train_batch_size: 8
    use_peft: false                             train a low-rank adapter; lora_target_modules: all-linear, lora_r: 16
    use_dora: false                             ... with a magnitude of its own (DoRA)
    load_in_4bit: false                         ... on a base in 4 bits (QLoRA; a CUDA card and bitsandbytes)
    save_steps: 500                             a stopped run goes on from the newest checkpoint, bit for bit
"""


from training.tuning.dataset_formats import INSTRUCTIONS
from training.tuning.trl import train


def main(arguments: list[str]) -> None:
    preview = None
    if "--preview" in arguments:
        from training.tuning.sft import preview
    train(
        "sft",
        "training.tuning.sft:SupervisedTrainer",
        "trl:SFTConfig",
        INSTRUCTIONS,
        [argument for argument in arguments if argument != "--preview"],
        __doc__,
        preview,
    )
