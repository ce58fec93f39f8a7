"""Talk to a model in the terminal: scratch chat runs/quickstart/export [--temperature 0.8] [--system TEXT]

A line is sent when you press Enter; end a line with a backslash to go on in the next. Ctrl-D ends the conversation.
"""

import argparse
from pathlib import Path

from training.errors import UserError


def read_message() -> str | None:
    """One message from standard input, or None at its end."""
    lines = []
    while True:
        try:
            line = input("... " if lines else "> ")
        except EOFError:
            return None
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scratch chat", description=__doc__)
    parser.add_argument("model", help="folder of a chat model, such as runs/quickstart/export")
    parser.add_argument("--system", help="a system message that opens the conversation")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token [0]")
    parser.add_argument("--max_new_tokens", type=int, default=200, help="longest answer [200]")
    options = parser.parse_args(arguments)
    if not (Path(options.model) / "config.json").is_file():
        raise UserError(f"{options.model}: no model there")

    from transformers import AutoModelForCausalLM, TextStreamer

    from training.engine.device import pick_device
    from training.engine.vocabulary import open_model_tokenizer
    from training.engine.weights import check_weights

    tokenizer = open_model_tokenizer(options.model, "model")
    if tokenizer.chat_template is None:
        raise UserError(f"{options.model}: its tokenizer has no chat template; it is not a chat model")
    check_weights(options.model, "model")
    model = AutoModelForCausalLM.from_pretrained(options.model).to(pick_device())
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    sampling = {"do_sample": True, "temperature": options.temperature} if options.temperature else {"do_sample": False}
    conversation = [{"role": "system", "content": options.system}] if options.system else []
    while (message := read_message()) is not None:
        conversation.append({"role": "user", "content": message})
        inputs = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_tensors="pt").to(
            model.device
        )
        length = inputs["input_ids"].shape[1]
        room = model.config.max_position_embeddings - length
        if room < 1:
            raise UserError(
                f"the conversation has outgrown the model's {model.config.max_position_embeddings} tokens; start anew"
            )
        output = model.generate(
            **inputs, **sampling, max_new_tokens=min(room, options.max_new_tokens), streamer=streamer
        )
        answer = tokenizer.decode(output[0, length:], skip_special_tokens=True)
        conversation.append({"role": "assistant", "content": answer})
