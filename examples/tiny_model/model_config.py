"""The model's configuration: nvidia/parakeet-tdt-0.6b-v2 in shape, 300 times smaller."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

WIDTH = 128  # of the encoder, the prediction net and the joint net
LAYERS = 4
HEADS = 4
MEL_BANDS = 80
SUBSAMPLING = 8
SUBSAMPLING_CHANNELS = 64
HOP_SECONDS = 0.01
FRAME_SECONDS = HOP_SECONDS * SUBSAMPLING
DURATIONS = [0, 1, 2, 3, 4]

_MODULES = "nemo.collections.asr.modules"


def model_config(tokenizer: Path) -> DictConfig:
    """Return the configuration of `EncDecRNNTBPEModel`. Dropout only in the prediction net: the data vary enough."""
    return OmegaConf.create(
        {
            "sample_rate": 16000,
            "log_prediction": False,
            "skip_nan_grad": False,
            "model_defaults": {
                "enc_hidden": WIDTH,
                "pred_hidden": WIDTH,
                "joint_hidden": WIDTH,
                "tdt_durations": DURATIONS,
                "num_tdt_durations": len(DURATIONS),
            },
            "tokenizer": {"dir": str(tokenizer), "type": "bpe"},
            "preprocessor": _preprocessor(),
            "spec_augment": {
                "_target_": f"{_MODULES}.SpectrogramAugmentation",
                "freq_masks": 2,
                "time_masks": 5,
                "freq_width": 15,
                "time_width": 0.05,
            },
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
            "loss": {
                "loss_name": "tdt",
                "tdt_kwargs": {
                    "fastemit_lambda": 0.0,
                    "clamp": -1.0,
                    "durations": DURATIONS,
                    "sigma": 0.02,
                    "omega": 0.0,
                },
            },
            # Never read, but `transcribe(path)` of NeMo expects them.
            "train_ds": _no_data(shuffle=True),
            "validation_ds": _no_data(shuffle=False),
            "optim": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.98], "weight_decay": 1e-3},
        }
    )


def _preprocessor() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16000,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": HOP_SECONDS,
        "window": "hann",
        "features": MEL_BANDS,
        "n_fft": 512,
        "frame_splicing": 1,
        "dither": 1e-5,
        "pad_to": 0,
    }


def _encoder() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.ConformerEncoder",
        "feat_in": MEL_BANDS,
        "feat_out": -1,
        "n_layers": LAYERS,
        "d_model": WIDTH,
        "use_bias": False,
        "subsampling": "dw_striding",
        "subsampling_factor": SUBSAMPLING,
        "subsampling_conv_channels": SUBSAMPLING_CHANNELS,
        "causal_downsampling": False,
        "reduction": None,
        "reduction_position": None,
        "reduction_factor": 1,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": HEADS,
        "att_context_size": [-1, -1],
        "att_context_style": "regular",
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
        "conv_context_size": None,
        "dropout": 0.0,
        "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0,
        "dropout_att": 0.0,
        "stochastic_depth_drop_prob": 0.0,
        "stochastic_depth_mode": "linear",
        "stochastic_depth_start_layer": 1,
    }


def _decoder() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.RNNTDecoder",
        "normalization_mode": None,
        "random_state_sampling": False,
        "blank_as_pad": True,
        "prednet": {"pred_hidden": WIDTH, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.2},
    }


def _joint() -> dict[str, Any]:
    return {
        "_target_": f"{_MODULES}.RNNTJoint",
        "log_softmax": None,
        "preserve_memory": False,
        "fuse_loss_wer": False,
        "fused_batch_size": -1,
        "jointnet": {
            "joint_hidden": WIDTH,
            "activation": "relu",
            "dropout": 0.0,
            "encoder_hidden": WIDTH,
            "pred_hidden": WIDTH,
        },
        "num_extra_outputs": len(DURATIONS),
    }


def _no_data(*, shuffle: bool) -> dict[str, Any]:
    return {
        "manifest_filepath": None,
        "sample_rate": 16000,
        "batch_size": 4,
        "shuffle": shuffle,
        "use_start_end_token": False,
    }
