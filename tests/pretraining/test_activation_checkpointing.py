"""Activation checkpointing, by the method's name in each supported release of transformers."""

from tiny_model import build

from training.pretraining.model import checkpoint_activations


class OlderModel:
    """What transformers 5.17 calls it."""

    enabled = False

    def gradient_checkpointing_enable(self):
        self.enabled = True


def test_every_layer_is_recomputed(recwarn):
    model, older = build(), OlderModel()
    checkpoint_activations(model)
    checkpoint_activations(older)
    assert older.enabled and all(layer.gradient_checkpointing for layer in model.model.layers)
    assert not [warning for warning in recwarn if "checkpointing" in str(warning.message)]
