"""A folder of safetensors with the key names of transformers' `ParakeetForTDT`, translated to NeMo's.

It holds `config.json`, `model.safetensors` (or parts of it and their index) and `tokenizer.json`; what
`preprocessor_config.json` leaves out is as transformers has it by default. The weights are mapped.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile
from worker.adapters.parakeet.network.config import NetworkConfig, Section, UnsupportedModel
from worker.ports import SAMPLE_RATE_HZ

CONFIG = "config.json"

_MOST_JSON_BYTES = 64 * 2**20
_INDEX = "model.safetensors.index.json"

_NEMO_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^encoder\.subsampling\.layers\.", "encoder.pre_encode.conv."),
        (r"^encoder\.subsampling\.linear\.", "encoder.pre_encode.out."),
        (r"\.conv\.norm\.", ".conv.batch_norm."),
        (r"\.self_attn\.([qkv])_proj\.", r".self_attn.linear_\1."),
        (r"\.self_attn\.o_proj\.", ".self_attn.linear_out."),
        (r"\.self_attn\.relative_k_proj\.", ".self_attn.linear_pos."),
        (r"\.self_attn\.bias_([uv])$", r".self_attn.pos_bias_\1"),
        (r"^decoder\.embedding\.", "decoder.prediction.embed."),
        (r"^decoder\.lstm\.", "decoder.prediction.dec_rnn.lstm."),
        (r"^decoder\.decoder_projector\.", "joint.pred."),
        (r"^encoder_projector\.", "joint.enc."),
        (r"^joint\.head\.", "joint.joint_net.2."),
    )
)

_LINEAR_HZ = 200 / 3
"""Slaney's mel scale is linear below 1 kHz, 66.7 Hz a mel, and logarithmic above."""
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def nemo_config(folder: Path) -> Mapping[str, object]:
    """Return the configuration as NeMo would write it, as far as `network_config` reads it.

    Raises `BadModelFile`, `OSError`, and `UnsupportedModel` for another architecture.
    """
    config = _json(folder / CONFIG)
    if config.get("model_type") != "parakeet_tdt":
        raise UnsupportedModel(f"model_type is {config.get('model_type')!r}; the network knows 'parakeet_tdt'")
    encoder = config.get("encoder_config")
    if not isinstance(encoder, Mapping):
        raise BadModelFile(f"{CONFIG} has no encoder_config")
    _require_known(config, encoder)
    vocabulary_size = config.get("blank_token_id")
    return {
        "tokenizer": {"type": "bpe"},
        "preprocessor": _preprocessor(folder, encoder),
        "encoder": _encoder(encoder),
        "decoder": {
            "prednet": {
                "pred_hidden": config.get("decoder_hidden_size"),
                "pred_rnn_layers": config.get("num_decoder_layers"),
            },
            "vocab_size": vocabulary_size,
        },
        "joint": {
            # The dropout of NeMo's models, which gives the last layer its name.
            "jointnet": {"joint_hidden": config.get("decoder_hidden_size"), "activation": "relu", "dropout": 0.2},
            "num_classes": vocabulary_size,
            "num_extra_outputs": len(_durations(config)),
        },
        "decoding": {"durations": _durations(config), "greedy": {"max_symbols": config.get("max_symbols_per_step")}},
    }


def mapped_weights(folder: Path, config: NetworkConfig) -> Mapping[str, Tensor]:
    """Map the weights, by NeMo's names; window and bands of the spectrogram are computed. Raises `BadModelFile`."""
    weights = {_nemo_name(name): tensor for name, tensor in _tensors(folder)}
    weights["preprocessor.featurizer.window"] = torch.hann_window(config.window_samples, periodic=False)
    weights["preprocessor.featurizer.fb"] = mel_bands(n_mels=config.n_mels, n_fft=config.n_fft)
    return weights


def mel_bands(*, n_mels: int, n_fft: int) -> Tensor:
    """Return triangles of unit area on Slaney's scale from 0 to half of 16 kHz.

    float32 of shape (1, n_mels, n_fft // 2 + 1). Source: Slaney's Auditory Toolbox, as librosa.filters.mel computes it.
    """
    mels = torch.linspace(0, _mel(SAMPLE_RATE_HZ / 2), n_mels + 2, dtype=torch.float64)
    linear = mels * _LINEAR_HZ
    break_mel = _mel(_BREAK_HZ)
    corners = torch.where(mels < break_mel, linear, _BREAK_HZ * torch.exp(_LOG_STEP * (mels - break_mel)))
    bins = torch.linspace(0, SAMPLE_RATE_HZ / 2, n_fft // 2 + 1, dtype=torch.float64)
    widths = corners.diff()
    ramps = corners[:, None] - bins
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0).float()  # rounded twice, as librosa does
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).float()[None]


def pieces(folder: Path, vocabulary_size: int) -> tuple[str, ...]:
    """Return the tokenizer's first `vocabulary_size` pieces in the order of their ids. Raises `BadModelFile`."""
    tokenizer = _json(folder / "tokenizer.json")
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    by_id: dict[int, str] = {}
    if isinstance(vocabulary, Mapping):  # BPE
        by_id = {number: piece for piece, number in vocabulary.items() if type(number) is int}
    elif isinstance(vocabulary, list):  # unigram: pieces with their scores
        by_id = {number: str(entry[0]) for number, entry in enumerate(vocabulary) if isinstance(entry, list) and entry}
    for added in tokenizer.get("added_tokens") or ():
        if isinstance(added, Mapping) and type(added.get("id")) is int and isinstance(added.get("content"), str):
            by_id.setdefault(added["id"], added["content"])
    missing = [number for number in range(vocabulary_size) if number not in by_id]
    if missing:
        raise BadModelFile(f"tokenizer.json has no piece {missing[0]} of {vocabulary_size:,}")
    return tuple(by_id[number] for number in range(vocabulary_size))


def _require_known(config: Mapping[str, object], encoder: Mapping[str, object]) -> None:
    Section("", config).require_defaults(hidden_act="relu")
    Section("", encoder).require_defaults(
        hidden_act="silu",
        subsampling_conv_kernel_size=3,
        subsampling_conv_stride=2,
        convolution_bias=encoder.get("attention_bias", True),
    )
    blank, labels = config.get("blank_token_id"), config.get("vocab_size")
    if not isinstance(blank, int) or labels != blank + 1:
        raise UnsupportedModel(f"blank_token_id is {blank!r}; the network knows the last of {labels!r} labels")
    width, inner = encoder.get("hidden_size"), encoder.get("intermediate_size")
    if not isinstance(width, int) or not isinstance(inner, int) or width < 1 or inner % width:
        raise UnsupportedModel(f"intermediate_size is {inner!r}; the network knows multiples of hidden_size, {width!r}")


def _preprocessor(folder: Path, encoder: Mapping[str, object]) -> Mapping[str, object]:
    file = folder / "preprocessor_config.json"
    given: Mapping[str, object] = _json(file) if file.exists() else {}
    return {
        "sample_rate": given.get("sampling_rate", 16_000),
        "n_window_size": given.get("win_length", 400),
        "n_window_stride": given.get("hop_length", 160),
        "n_fft": given.get("n_fft", 512),
        "preemph": given.get("preemphasis", 0.97),
        "features": encoder.get("num_mel_bins"),
    }


def _encoder(encoder: Mapping[str, Any]) -> Mapping[str, object]:
    return {
        "feat_in": encoder.get("num_mel_bins"),
        "n_layers": encoder.get("num_hidden_layers"),
        "d_model": encoder["hidden_size"],
        "n_heads": encoder.get("num_attention_heads"),
        "ff_expansion_factor": encoder["intermediate_size"] // encoder["hidden_size"],
        "conv_kernel_size": encoder.get("conv_kernel_size"),
        "subsampling": "dw_striding",
        "subsampling_factor": encoder.get("subsampling_factor"),
        "subsampling_conv_channels": encoder.get("subsampling_conv_channels"),
        "xscaling": encoder.get("scale_input", True),
        "use_bias": encoder.get("attention_bias", True),
    }


def _durations(config: Mapping[str, object]) -> list[object]:
    durations = config.get("durations")
    return durations if isinstance(durations, list) else []


def _nemo_name(name: str) -> str:
    for pattern, replacement in _NEMO_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # a .nemo file needs none

    for name in _weight_files(folder):
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no mapping
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise BadModelFile(f"{name} is damaged or no safetensors: {error}") from error


def _weight_files(folder: Path) -> list[str]:
    if not (folder / _INDEX).exists():
        return ["model.safetensors"]
    places = _json(folder / _INDEX).get("weight_map")
    if not isinstance(places, Mapping):
        raise BadModelFile(f"{_INDEX} has no weight_map")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise BadModelFile(f"{_INDEX} names {name!r}, which is no safetensors file of its folder")
    return names


def _json(file: Path) -> Mapping[str, Any]:
    size = file.stat().st_size
    if size > _MOST_JSON_BYTES:
        raise BadModelFile(f"{file.name} has {size:,} bytes; at most {_MOST_JSON_BYTES:,} are read")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{file.name} is no JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise BadModelFile(f"{file.name} holds no object")
    return content


def _mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP
