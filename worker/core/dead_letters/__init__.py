"""Dead letters: envelopes, holding, replay, adoption."""
