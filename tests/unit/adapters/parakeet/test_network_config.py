import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.engines.parakeet_config import MISSING, PARAKEET_V2, with_option
from worker.adapters.parakeet.network.config import NetworkConfig, UnsupportedModel, network_config


def test_the_configuration_of_parakeet_v2_gives_its_sizes() -> None:
    config = network_config(PARAKEET_V2)

    assert config == NetworkConfig(
        window_samples=400,
        hop_samples=160,
        n_fft=512,
        n_mels=128,
        preemphasis=0.97,
        log_guard=2**-24,
        n_layers=24,
        d_model=1024,
        n_heads=8,
        d_feed_forward=4096,
        conv_kernel=9,
        subsampling_factor=8,
        subsampling_channels=256,
        xscaling=False,
        use_bias=False,
        d_encoder=1024,
        d_prediction=640,
        n_prediction_layers=2,
        d_joint=640,
        joint_dropout=True,
        vocabulary_size=1024,
        durations=(0, 1, 2, 3, 4),
        max_symbols=10,
    )
    assert config.frame_seconds == 0.08
    assert (config.blank, config.n_labels) == (1024, 1025)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (159, 0), (160, 1), (1280, 1), (1440, 2), (480_000, 375), (639_840, 500)]
)
def test_a_windows_encoder_frames_follow_from_its_samples(samples: int, frames: int) -> None:
    assert network_config(PARAKEET_V2).encoder_frames(samples) == frames


REFUSED = {
    "local attention": ("encoder.self_attention_model", "rel_pos_local_attn"),
    "absolute positions": ("encoder.self_attention_model", "abs_pos"),
    "a limited view": ("encoder.att_context_size", [128, 128]),
    "several views": ("encoder.att_context_size", [[-1, -1], [70, 13]]),
    "chunks": ("encoder.att_context_style", "chunked_limited"),
    "global tokens": ("encoder.global_tokens", 1),
    "plain striding": ("encoder.subsampling", "striding"),
    "stacked frames": ("encoder.subsampling", "stacking"),
    "causal subsampling": ("encoder.causal_downsampling", True),
    "a factor that is no power of two": ("encoder.subsampling_factor", 6),
    "no subsampling": ("encoder.subsampling_factor", 1),
    "too many frames for a window": ("encoder.subsampling_factor", 4),
    "a reduction": ("encoder.reduction", "pooling"),
    "a projected output": ("encoder.feat_out", 512),
    "another encoder": ("encoder._target_", "nemo.collections.asr.modules.SqueezeformerEncoder"),
    "an unknown option of the encoder": ("encoder.rotary_positions", True),
    "layer norm after convolutions": ("encoder.conv_norm_type", "layer_norm"),
    "causal convolutions": ("encoder.conv_context_size", "causal"),
    "an even kernel": ("encoder.conv_kernel_size", 8),
    "heads that do not divide the width": ("encoder.n_heads", 7),
    "no layers": ("encoder.n_layers", 0),
    "a number that is text": ("encoder.d_model", "1024"),
    "an unresolved reference": ("encoder.d_model", "${model_defaults.enc_hidden}"),
    "bands that are not the encoder's": ("encoder.feat_in", 80),
    "a sampling rate of 8 kHz": ("preprocessor.sample_rate", 8_000),
    "another normalisation": ("preprocessor.normalize", "all_features"),
    "a spectrogram without window": ("preprocessor.window", "none"),
    "a magnitude spectrum": ("preprocessor.mag_power", 1.0),
    "a guard that clamps": ("preprocessor.log_zero_guard_type", "clamp"),
    "a guard by name": ("preprocessor.log_zero_guard_value", "eps"),
    "spliced frames": ("preprocessor.frame_splicing", 3),
    "a window longer than the transform": ("preprocessor.n_fft", 256),
    "cepstra": ("preprocessor._target_", "nemo.collections.asr.modules.AudioToMFCCPreprocessor"),
    "no durations": ("decoding.durations", []),
    "a negative duration": ("decoding.durations", [-1, 0, 1, 2, 3]),
    "another number of durations": ("joint.num_extra_outputs", 3),
    "no outputs for durations": ("joint.num_extra_outputs", 0),
    "another activation": ("joint.jointnet.activation", "tanh"),
    "another joint network": ("joint._target_", "nemo.collections.asr.modules.SampledRNNTJoint"),
    "an unknown option of the joint network": ("joint.gate", "glu"),
    "two sizes of vocabulary": ("joint.num_classes", 1000),
    "a stateless prediction network": ("decoder._target_", "nemo.collections.asr.modules.StatelessTransducerDecoder"),
    "a normalised prediction network": ("decoder.normalization_mode", "layer"),
    "a projected LSTM": ("decoder.prednet.rnn_hidden_size", 2048),
    "no padding by blanks": ("decoder.blank_as_pad", False),
    "a joint network of another width": ("joint.jointnet.encoder_hidden", 512),
    "several tokenizers": ("tokenizer", {"type": "agg", "langs": {"en": {}, "de": {}}}),
    "no tokenizer": ("tokenizer", MISSING),
    "a CTC model": ("target", "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE"),
    "prompts": ("target", "nemo.collections.asr.models.rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt"),
    "adapters": ("adapters", {"english": {"enabled": True}}),
    "no encoder": ("encoder", MISSING),
    "an encoder that is a list": ("encoder", ["conformer"]),
}


@pytest.mark.parametrize(("path", "value"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_the_network_does_not_know_is_refused_by_name(path: str, value: object) -> None:
    with pytest.raises(UnsupportedModel, match=path.split(".", maxsplit=1)[0]) as refusal:
        network_config(with_option(path, value))

    assert "the network knows" in str(refusal.value)


def test_a_transducer_without_durations_anywhere_is_refused() -> None:
    raw = with_option("decoding", MISSING)
    del raw["model_defaults"]

    with pytest.raises(UnsupportedModel, match=r"decoding\.durations is missing"):
        network_config(raw)


ACCEPTED = {
    "biases": ("encoder.use_bias", True, "use_bias", True),
    "scaled input": ("encoder.xscaling", True, "xscaling", True),
    "tied position biases": ("encoder.untie_biases", False, "n_layers", 24),
    "half of the frames": ("encoder.subsampling_factor", 16, "subsampling_factor", 16),
    "channels as wide as the model": ("encoder.subsampling_conv_channels", -1, "subsampling_channels", 1024),
    "the whole view by name": ("encoder.att_context_size", [[-1, -1]], "d_model", 1024),
    "no limit of symbols": ("decoding.greedy.max_symbols", None, "max_symbols", 10),
    "no decoding": ("decoding", MISSING, "durations", (0, 1, 2, 3, 4)),
    "no dropout in the joint network": ("joint.jointnet.dropout", 0.0, "joint_dropout", False),
    "no pre-emphasis": ("preprocessor.preemph", None, "preemphasis", 0.0),
    "the transform's length from the window": ("preprocessor.n_fft", None, "n_fft", 512),
    "a joint network that names no width": ("joint.jointnet.encoder_hidden", MISSING, "d_encoder", 1024),
    "dropout": ("encoder.dropout", 0.5, "d_model", 1024),
    "an unknown option that is off": ("encoder.rotary_positions", False, "d_model", 1024),
    "a tokenizer of many languages": ("decoder.vocab_size", 1024, "vocabulary_size", 1024),
}


@pytest.mark.parametrize(("path", "value", "field", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_variants_that_the_network_computes_are_accepted(
    path: str, value: object, field: str, expected: object
) -> None:
    assert getattr(network_config(with_option(path, value)), field) == expected


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers()))
OPTIONS = [
    f"{section}.{option}"
    for section in ("preprocessor", "encoder", "decoder", "joint", "decoding", "tokenizer")
    for option in PARAKEET_V2[section]
]


@given(path=st.sampled_from(OPTIONS), value=SCALARS)
def test_any_value_of_any_option_is_accepted_or_refused_in_order(path: str, value: object) -> None:
    try:
        config = network_config(with_option(path, value))
    except UnsupportedModel as refusal:
        assert str(refusal)  # noqa: PT017  both outcomes are right
    else:
        assert config.d_model % config.n_heads == 0
