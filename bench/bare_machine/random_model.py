"""A `.nemo` file of parakeet-tdt-0.6b-v2's architecture with random weights, written without NeMo.

How fast a network computes does not depend on the values of its weights, but how often it emits a token does, and each
token costs a decoding step: see `bench.bare_machine.token_rate`.
"""

import io
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from bench.bare_machine.token_rate import with_token_rate
from bench.bare_machine.weight_shapes import weight_shapes
from worker.adapters.parakeet.loading.model_files import ModelFiles
from worker.adapters.parakeet.loading.safetensors_folder import mel_bands
from worker.adapters.parakeet.network.config import NetworkConfig, network_config

PIECES = 1024
DURATIONS = [0, 1, 2, 3, 4]

_MODULES = "nemo.collections.asr.modules"
_SAMPLE_RATE_HZ = 16_000
_SEED = 6


def raw_config(pieces: list[str], *, layers: int = 24) -> dict[str, object]:
    """Return the content of the model's `model_config.yaml`, as far as inference reads it."""
    decoding = {
        "strategy": "greedy_batch",
        "model_type": "tdt",
        "durations": DURATIONS,
        "greedy": {"max_symbols": 10},
        "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
    }
    return {
        "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
        "sample_rate": _SAMPLE_RATE_HZ,
        "log_prediction": False,
        "labels": pieces,
        "model_defaults": {
            "enc_hidden": 1024,
            "pred_hidden": 640,
            "joint_hidden": 640,
            "tdt_durations": DURATIONS,
            "num_tdt_durations": len(DURATIONS),
        },
        "tokenizer": {
            "dir": "tokenizer",
            "type": "bpe",
            "model_path": "nemo:tokenizer.model",
            "vocab_path": "nemo:vocab.txt",
            "spe_tokenizer_vocab": "nemo:tokenizer.vocab",
        },
        "preprocessor": _preprocessor(),
        "encoder": _encoder(layers),
        "decoder": {
            "_target_": f"{_MODULES}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": 640, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.2},
            "vocab_size": len(pieces),
        },
        "joint": _joint(pieces),
        "decoding": decoding,
        "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": DURATIONS, "sigma": 0.02, "omega": 0.1}},
        # Never read, but NeMo's `transcribe` expects them.
        "train_ds": _no_data(),
        "validation_ds": _no_data(),
        "optim": {"name": "adamw", "lr": 1e-3},
    }


def random_weights(config: NetworkConfig) -> dict[str, Tensor]:
    """Return weights by NeMo's names, float32, the same at each call; spectrogram weights are the real ones."""
    torch.manual_seed(_SEED)
    weights = {name: _random(name, shape) for name, shape in weight_shapes(config)}
    weights["preprocessor.featurizer.window"] = torch.hann_window(config.window_samples, periodic=False)
    weights["preprocessor.featurizer.fb"] = mel_bands(n_mels=config.n_mels, n_fft=config.n_fft)
    return weights


def write_model(
    path: Path, *, layers: int, tuned_on: tuple[Sequence[NDArray[np.int16]], torch.device] | None = None
) -> None:
    """Write the file: 2.5 GB with 24 layers. `tuned_on` windows of audio it emits tokens at a usual rate."""
    tokenizer = _tokenizer()
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    raw = raw_config(pieces, layers=layers)
    config = network_config(raw)
    weights: Mapping[str, Tensor] = random_weights(config)
    if tuned_on:
        weights = with_token_rate(ModelFiles(config=config, weights=weights, pieces=tuple(pieces)), *tuned_on)
    write_nemo(path, raw, weights, tokenizer, pieces)


def write_nemo(
    path: Path, raw: Mapping[str, object], weights: Mapping[str, Tensor], tokenizer: bytes, pieces: list[str]
) -> None:
    """Write a `.nemo` file: a plain tar."""
    checkpoint = path.with_suffix(".ckpt")
    torch.save(dict(weights), checkpoint)
    with tarfile.open(path, "w:") as tar:
        _add(tar, "model_config.yaml", yaml.dump(dict(raw), Dumper=_PlainDumper, sort_keys=False).encode())
        _add(tar, "tokenizer.model", tokenizer)
        _add(tar, "vocab.txt", "".join(f"{piece.lstrip('▁')}\n" for piece in pieces[1:]).encode())
        _add(tar, "tokenizer.vocab", "".join(f"{piece}\t0\n" for piece in pieces).encode())
        tar.add(checkpoint, "model_weights.ckpt")
    checkpoint.unlink()


def _random(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the initial values that torch's own layers have, and batch norms that have learned nothing."""
    if name.endswith(("running_var", "norm.weight")) or (".norm_" in name and name.endswith("weight")):
        return torch.ones(shape)
    if name.endswith("running_mean") or ("norm" in name and name.endswith("bias")):
        return torch.zeros(shape)
    if "embed" in name:
        return torch.randn(shape)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    values: Tensor = (2 * torch.rand(shape) - 1) / fan_in**0.5
    return values


def _tokenizer() -> bytes:
    """Return a tokenizer with as many pieces as the real model's, of a made-up language."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(random.Random(_SEED)),
        model_writer=model,
        vocab_size=PIECES,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return model.getvalue()


def _sentences(rng: random.Random) -> Iterator[str]:
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    for _ in range(4_000):
        yield " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(8))


class _PlainDumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice: the loader refuses aliases, which NeMo does not write."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True."""
        del data
        return True


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _preprocessor() -> dict[str, object]:
    return {
        "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
        "sample_rate": _SAMPLE_RATE_HZ,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": 128,
        "n_fft": 512,
        "dither": 1e-5,
        "pad_to": 0,
    }


def _encoder(layers: int) -> dict[str, object]:
    return {
        "_target_": f"{_MODULES}.ConformerEncoder",
        "feat_in": 128,
        "feat_out": -1,
        "n_layers": layers,
        "d_model": 1024,
        "use_bias": False,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 256,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 8,
        "att_context_size": [-1, -1],
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
    }


def _joint(pieces: list[str]) -> dict[str, object]:
    return {
        "_target_": f"{_MODULES}.RNNTJoint",
        "log_softmax": None,
        "fuse_loss_wer": False,
        "fused_batch_size": -1,
        "jointnet": {
            "joint_hidden": 640,
            "activation": "relu",
            "dropout": 0.2,
            "encoder_hidden": 1024,
            "pred_hidden": 640,
        },
        "num_extra_outputs": len(DURATIONS),
        "num_classes": len(pieces),
        "vocabulary": pieces,
    }


def _no_data() -> dict[str, object]:
    return {"manifest_filepath": None, "sample_rate": _SAMPLE_RATE_HZ, "batch_size": 4, "shuffle": False}
