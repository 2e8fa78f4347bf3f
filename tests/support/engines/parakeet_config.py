"""The configuration of parakeet-tdt-0.6b-v2, as far as inference reads it, with other sizes where a test wants them."""

from copy import deepcopy
from typing import Any

DURATIONS = [0, 1, 2, 3, 4]

PARAKEET_V2: dict[str, Any] = {
    "target": "nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel",
    "sample_rate": 16_000,
    "model_defaults": {"enc_hidden": 1024, "pred_hidden": 640, "joint_hidden": 640, "tdt_durations": DURATIONS},
    "tokenizer": {"dir": None, "type": "bpe", "model_path": "nemo:abc_tokenizer.model"},
    "preprocessor": {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16_000,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": 128,
        "n_fft": 512,
        "log": True,
        "frame_splicing": 1,
        "dither": 1e-5,
        "pad_to": 0,
        "pad_value": 0.0,
    },
    "encoder": {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": 128,
        "feat_out": -1,
        "n_layers": 24,
        "d_model": 1024,
        "use_bias": False,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 256,
        "causal_downsampling": False,
        "reduction": None,
        "reduction_position": None,
        "reduction_factor": 1,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 8,
        "att_context_size": [-1, -1],
        "att_context_style": "regular",
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
        "conv_context_size": None,
        "dropout": 0.1,
    },
    "decoder": {
        "_target_": "nemo.collections.asr.modules.RNNTDecoder",
        "normalization_mode": None,
        "random_state_sampling": False,
        "blank_as_pad": True,
        "prednet": {"pred_hidden": 640, "pred_rnn_layers": 2, "t_max": None, "dropout": 0.2},
        "vocab_size": 1024,
    },
    "joint": {
        "_target_": "nemo.collections.asr.modules.RNNTJoint",
        "log_softmax": None,
        "fuse_loss_wer": False,
        "jointnet": {
            "joint_hidden": 640,
            "activation": "relu",
            "dropout": 0.2,
            "encoder_hidden": 1024,
            "pred_hidden": 640,
        },
        "num_extra_outputs": len(DURATIONS),
        "num_classes": 1024,
    },
    "decoding": {
        "strategy": "greedy_batch",
        "model_type": "tdt",
        "durations": DURATIONS,
        "greedy": {"max_symbols": 10},
    },
}

MISSING = object()


def with_option(path: str, value: object) -> dict[str, Any]:
    """Return the configuration with the option at a dotted path set, or left out where the value is `MISSING`."""
    config = deepcopy(PARAKEET_V2)
    *parts, option = path.split(".")
    section = config
    for part in parts:
        section = section[part]
    if value is MISSING:
        del section[option]
    else:
        section[option] = value
    return config
