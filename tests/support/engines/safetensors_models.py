"""Small models in transformers' format with random weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from worker.embedded.samples import tiny_model

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


_THEIR_NAMES = (
    ("encoder.pre_encode.conv.", "encoder.subsampling.layers."),
    ("encoder.pre_encode.out.", "encoder.subsampling.linear."),
    (".conv.batch_norm.", ".conv.norm."),
    (".linear_pos.", ".relative_k_proj."),
    (".linear_out.", ".o_proj."),
    (".linear_q.", ".q_proj."),
    (".linear_k.", ".k_proj."),
    (".linear_v.", ".v_proj."),
    (".pos_bias_", ".bias_"),
    ("decoder.prediction.embed.", "decoder.embedding."),
    ("decoder.prediction.dec_rnn.lstm.", "decoder.lstm."),
    ("joint.enc.", "encoder_projector."),
    ("joint.pred.", "decoder.decoder_projector."),
    ("joint.joint_net.1.", "joint.head."),
)


def tiny_model_as_v3(folder: Path) -> None:
    """Save the tiny model in transformers' format, its vocabulary filled up to v3's with pieces that it never emits."""
    from safetensors.torch import save_file  # noqa: PLC0415

    from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: PLC0415

    files = open_model_files(Path(tiny_model()))
    config, added = files.config, V3_PIECES - files.config.vocabulary_size
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in files.weights.items():
        theirs = name
        for mine, their in _THEIR_NAMES:
            theirs = theirs.replace(mine, their)
        if not name.startswith("preprocessor."):
            weights[theirs] = tensor.float().contiguous() if tensor.is_floating_point() else tensor

    def filled(tensor: torch.Tensor, value: float) -> torch.Tensor:
        pieces, rest = tensor[: config.vocabulary_size], tensor[config.vocabulary_size :]
        return torch.cat((pieces, torch.full((added, *tensor.shape[1:]), value), rest))

    weights["decoder.embedding.weight"] = filled(weights["decoder.embedding.weight"], 0.0)
    weights["joint.head.weight"] = filled(weights["joint.head.weight"], 0.0)
    weights["joint.head.bias"] = filled(weights["joint.head.bias"], -1_000.0)
    save_file(weights, folder / "model.safetensors")
    encoder = {
        "hidden_size": config.d_model,
        "intermediate_size": config.d_feed_forward,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "conv_kernel_size": config.conv_kernel,
        "subsampling_factor": config.subsampling_factor,
        "subsampling_conv_channels": config.subsampling_channels,
        "num_mel_bins": config.n_mels,
        "attention_bias": config.use_bias,
        "convolution_bias": config.use_bias,
        "scale_input": config.xscaling,
    }
    model = {
        "model_type": "parakeet_tdt",
        "vocab_size": V3_PIECES + 1,
        "blank_token_id": V3_PIECES,
        "decoder_hidden_size": config.d_prediction,
        "num_decoder_layers": config.n_prediction_layers,
        "durations": list(config.durations),
        "max_symbols_per_step": config.max_symbols,
        "encoder_config": encoder,
    }
    (folder / "config.json").write_text(json.dumps(model))
    write_tokenizer(folder, [*files.pieces, *(f"<{number}>" for number in range(added))])
