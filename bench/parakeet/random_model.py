"""parakeet-tdt-0.6b-v2 in architecture, with random weights that emit about four tokens a second of speech.

For speed where the hub is out of reach: what a network computes does not depend on the values of its weights, but how
often it emits a token does, and each token costs a decoding step. Hence the bias of the joint network, found by trial.
"""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from omegaconf import DictConfig, OmegaConf

from worker.adapters.parakeet.network.tdt_decoder import DecoderRows, TdtDecoder
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.reference.nemo_model import transducer_of
from worker.ports import SAMPLE_RATE_HZ, Pcm

PIECES = 1024
TOKENS_PER_SECOND = 4.0
DURATIONS = [0, 1, 2, 3, 4]

_MODULES = "nemo.collections.asr.modules"
_SEED = 6
_TRIALS = 12
_MOST_BIAS = 64.0
_TRIAL_SECONDS = 16
_FULL_SCALE = 32_768


def write_random_model(path: Path, speech: Pcm, *, layers: int = 24) -> None:
    """Make the model and keep it as a `.nemo` file, of 2.5 GB with all layers; the same for the same speech.

    Takes a minute.
    """
    torch.manual_seed(_SEED)
    with tempfile.TemporaryDirectory() as folder:
        _learn_tokenizer(Path(folder))
        config = model_config(folder)
        config.encoder.n_layers = layers
        network = EncDecRNNTBPEModel(cfg=config)
        network.eval()
        _find_bias(network, speech[: _TRIAL_SECONDS * SAMPLE_RATE_HZ])
        network.save_to(str(path))  # copies the tokenizer's files from the folder


def model_config(tokenizer_folder: str) -> DictConfig:
    """Return the configuration of parakeet-tdt-0.6b-v2, as far as inference reads it."""
    return OmegaConf.create(
        {
            "sample_rate": SAMPLE_RATE_HZ,
            "log_prediction": False,
            "model_defaults": {
                "enc_hidden": 1024,
                "pred_hidden": 640,
                "joint_hidden": 640,
                "tdt_durations": DURATIONS,
                "num_tdt_durations": len(DURATIONS),
            },
            "tokenizer": {"dir": tokenizer_folder, "type": "bpe"},
            "preprocessor": _preprocessor(),
            "encoder": _encoder(),
            "decoder": _decoder(),
            "joint": _joint(),
            "decoding": {
                "strategy": "greedy_batch",
                "model_type": "tdt",
                "durations": DURATIONS,
                "greedy": {"max_symbols": 10},
                "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
            },
            "loss": {"loss_name": "tdt", "tdt_kwargs": {"durations": DURATIONS, "sigma": 0.02, "omega": 0.1}},
            # Never read, but `transcribe(path)` of NeMo expects them.
            "train_ds": _no_data(),
            "validation_ds": _no_data(),
            "optim": {"name": "adamw", "lr": 1e-3},
        }
    )


def _preprocessor() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
        "sample_rate": SAMPLE_RATE_HZ,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": 128,
        "n_fft": 512,
        "dither": 1e-5,
        "pad_to": 0,
    }


def _encoder() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.ConformerEncoder",
        "feat_in": 128,
        "feat_out": -1,
        "n_layers": 24,
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


def _decoder() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.RNNTDecoder",
        "normalization_mode": None,
        "random_state_sampling": False,
        "blank_as_pad": True,
        "prednet": {"pred_hidden": 640, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.2},
    }


def _joint() -> dict[str, Any]:
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
    }


def _no_data() -> dict[str, Any]:
    return {"manifest_filepath": None, "sample_rate": SAMPLE_RATE_HZ, "batch_size": 4, "shuffle": False}


def _learn_tokenizer(folder: Path) -> None:
    """Return a tokenizer with as many pieces as the real model's, of a made-up language."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(random.Random(_SEED)),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=PIECES,
        model_type="bpe",
        character_coverage=1.0,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    (folder / "vocab.txt").write_text("".join(f"piece{number}\n" for number in range(1, PIECES)))


def _sentences(rng: random.Random) -> Iterator[str]:
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    for _ in range(4_000):
        yield " ".join("".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(8))


@torch.inference_mode()
def _find_bias(network: Any, speech: Pcm) -> None:
    """Bisect for the bias against blanks: the more of it, the more tokens."""
    wave = torch.from_numpy(speech.astype(np.float32) / _FULL_SCALE)[None]
    features, frames = network.preprocessor(input_signal=wave, length=torch.tensor([wave.shape[1]]))
    encoded, lengths = network.encoder(audio_signal=features, length=frames)
    bias = network.joint.joint_net[-1].bias
    bias[-len(DURATIONS)] -= _MOST_BIAS  # a duration of 0 is rare
    seconds, low, high = wave.shape[1] / SAMPLE_RATE_HZ, -_MOST_BIAS, _MOST_BIAS
    blank, start = network.decoder.blank_idx, float(bias[network.decoder.blank_idx])
    # On the network's own tensors, so that it sees the bias change.
    weights = Weights(network.state_dict(), torch.device("cpu"), torch.float32)
    decoder = TdtDecoder(weights, transducer_of(network, "random"), block_steps=8)
    frames = decoder.project(encoded[0].t().contiguous(), encoded.shape[2])
    rows = DecoderRows(frames=frames, starts=torch.zeros_like(lengths), lengths=lengths)
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        bias[blank] = start - middle
        if int(decoder(rows).emitted.sum()) / seconds > TOKENS_PER_SECOND:
            high = middle
        else:
            low = middle
