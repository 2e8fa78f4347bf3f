"""Small models in transformers' format with random weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

V3_PIECES = 8_192


def random_model(folder: Path, *, n_pieces: int = 256, seed: int = 0, **encoder: Any) -> Any:
    """Save a two-layer `ParakeetForTDT` to the folder and return it; `encoder` changes its encoder's configuration."""
    from transformers import (  # noqa: PLC0415  # seconds
        ParakeetEncoderConfig,
        ParakeetFeatureExtractor,
        ParakeetForTDT,
        ParakeetTDTConfig,
    )

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "subsampling_conv_channels": 16,
        "num_mel_bins": 80,
        "attention_bias": False,
        "convolution_bias": False,
        "scale_input": False,
        "initializer_range": 0.1,
        **encoder,
    }
    config = ParakeetTDTConfig(
        encoder_config=ParakeetEncoderConfig(**sizes),
        vocab_size=n_pieces + 1,
        blank_token_id=n_pieces,
        decoder_hidden_size=32,
        num_decoder_layers=2,
        durations=[0, 1, 2, 3, 4],
    )
    model = ParakeetForTDT(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "conv.norm.weight", "conv.norm.bias", "bias_u", "bias_v")):
                tensor.normal_()
        # Tokens that depend on the audio and on those before them, and blanks.
        for layer in (model.encoder_projector, model.decoder.decoder_projector, model.joint.head):
            layer.weight.normal_(std=0.5)
        for weight in (model.decoder.embedding.weight, *model.decoder.lstm.parameters()):
            weight.normal_()
        noise = torch.randn(1, 500, sizes["num_mel_bins"])
        logits = model(input_features=noise, decoder_input_ids=torch.tensor([[n_pieces]])).logits[0]
        model.joint.head.bias[n_pieces] += (logits[:, :n_pieces].amax(-1) - logits[:, n_pieces]).median() - 9
        # transformers sets no bound on the tokens of a frame: no duration of 0.
        model.joint.head.bias[n_pieces + 1] = -100.0
    model.save_pretrained(folder)
    ParakeetFeatureExtractor(feature_size=sizes["num_mel_bins"]).save_pretrained(folder)
    write_tokenizer(folder, [f"▁w{number}" for number in range(n_pieces)])
    return model


def write_tokenizer(folder: Path, pieces: Sequence[str]) -> None:
    """Write a `tokenizer.json` of byte pairs, with the blank as the token that transformers adds."""
    blank = {"id": len(pieces), "content": "<blank>", "special": True}
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    content = {"version": "1.0", "added_tokens": [blank], "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
