"""The sizes of a FastConformer-TDT network, read from NeMo's configuration, and the refusal of every other network.

NeMo builds many networks from one configuration format. This package knows one of them, so everything in the
configuration that could change what is computed is compared with what the package knows. Options that matter only to
training are ignored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Self

from worker.ports import SAMPLE_RATE_HZ

_OPTIONS = {
    "AudioToMelSpectrogramPreprocessor": """
    _target_ sample_rate window_size window_stride n_window_size n_window_stride window normalize n_fft preemph
    features lowfreq highfreq log log_zero_guard_type log_zero_guard_value dither pad_to frame_splicing exact_pad
    pad_value mag_power rng nb_augmentation_prob nb_max_freq mel_norm use_torchaudio stft_exact_pad stft_conv
    """,
    "ConformerEncoder": """
    _target_ feat_in feat_out n_layers d_model subsampling subsampling_factor subsampling_conv_chunking_factor
    subsampling_conv_channels causal_downsampling reduction reduction_position reduction_factor ff_expansion_factor
    self_attention_model n_heads att_context_size att_context_probs att_chunk_context_size att_context_style xscaling
    untie_biases pos_emb_max_len conv_kernel_size conv_norm_type conv_context_size conv_context_style use_bias dropout
    dropout_pre_encoder dropout_emb dropout_att stochastic_depth_drop_prob stochastic_depth_mode
    stochastic_depth_start_layer global_tokens global_tokens_spacing global_attn_separate use_pytorch_sdpa
    use_pytorch_sdpa_backends sync_max_audio_length
    """,
    "RNNTDecoder": "_target_ prednet vocab_size normalization_mode random_state_sampling blank_as_pad",
    "RNNTJoint": """
    _target_ jointnet num_classes num_extra_outputs vocabulary log_softmax preserve_memory fuse_loss_wer
    fused_batch_size experimental_fuse_loss_wer masking_prob
    """,
}
"""Arguments of NeMo 3.0's classes. The spectrogram's bands and window are weights, so what they are made of (`lowfreq`,
`highfreq`, `mel_norm`) does not matter."""


class UnsupportedModel(Exception):
    """A model that the network does not compute; the message names the option, its value and what is known."""


class Section:
    """One mapping of a configuration; `path` is its dotted name, empty for the whole configuration."""

    def __init__(self, path: str, values: Mapping[str, object]) -> None:
        self._path, self._values = path, values

    def __contains__(self, option: str) -> bool:
        return self._values.get(option) is not None

    def get(self, option: str, default: object = None) -> object:
        """Return the option's value."""
        return self._values.get(option, default)

    def section(self, option: str, *, optional: bool = False) -> Self:
        """Return the mapping under `option`; an empty one where it is optional and missing."""
        values = self._values.get(option)
        if values is None and optional:
            values = {}
        if not isinstance(values, Mapping):
            raise self.unsupported(option, "a mapping")
        return type(self)(self._name(option), values)

    def integer(self, option: str, default: int | None = None) -> int:
        """Return a whole number above zero."""
        value = self._value(option, default)
        if type(value) is not int or value < 1:
            raise self.unsupported(option, "a whole number above 0")
        return value

    def number(self, option: str, default: float, null: float | None = None) -> float:
        """Return a finite number that is not negative; `null`, where it is not None, for an explicit null."""
        value = self._values.get(option, default)
        if value is None:
            value = default if null is None else null
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.unsupported(option, "a number from 0")
        return float(value)

    def flag(self, option: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._value(option, default)
        if not isinstance(value, bool):
            raise self.unsupported(option, "true or false")
        return value

    def samples(self, seconds: str, samples: str, default_seconds: float) -> int:
        """Return a length, written in seconds or in samples, in samples; rounded down, as NeMo does."""
        if samples in self:
            return self.integer(samples)
        length = int(self.number(seconds, default_seconds) * int(self.number("sample_rate", 16_000)))
        if length < 1:
            raise self.unsupported(seconds, "at least one sample")
        return length

    def require(self, option: str, *known: object, default: object = None) -> None:
        """Raise `UnsupportedModel` unless the option's value, `default` where it is missing, is one of `known`."""
        value = self._values.get(option, default)
        if isinstance(value, tuple):
            value = list(value)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in known):
            raise self.unsupported(option, " or ".join(map(repr, known)))

    def require_defaults(self, **known: object) -> None:
        """Raise `UnsupportedModel` where one of these options is there and has another value."""
        for option, value in known.items():
            self.require(option, value, default=value)

    def require_empty(self, option: str) -> None:
        """Raise `UnsupportedModel` where the option is set to anything."""
        if self._values.get(option):
            raise self.unsupported(option, "nothing")

    def require_class(self, name: str) -> None:
        """Raise `UnsupportedModel` unless NeMo would build this class, from options of which none is a stranger.

        An option that is not listed may change what is computed.
        """
        for option, value in self._values.items():
            if option not in _OPTIONS[name].split() and value is not None and value is not False:
                raise self.unsupported(str(option), "no such option")
        if str(self._values.get("_target_", name)).rsplit(".", 1)[-1] != name:
            raise self.unsupported("_target_", name)

    def unsupported(self, option: str, known: str) -> UnsupportedModel:
        """Return the error for the option's value; `known` says what the network takes instead."""
        value = repr(self._values[option]) if option in self._values else "missing"
        return UnsupportedModel(f"{self._name(option)} is {shorten(value, 80)}; the network knows {known}")

    def _name(self, option: str) -> str:
        return f"{self._path}.{option}" if self._path else option

    def _value(self, option: str, default: object) -> object:
        value = self._values.get(option)
        return default if value is None else value


_MODEL_CLASSES = ("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel")
_DEFAULT_MAX_SYMBOLS = 10

LEAST_SUBSAMPLING = 8
"""With it a window of 40 s has 501 frames of 80 ms; attention's slots have at most 512."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransducerConfig:
    """The sizes of a decoder."""

    d_encoder: int
    """Width of the encoder's output."""
    d_prediction: int
    n_prediction_layers: int
    d_joint: int
    joint_dropout: bool
    """A dropout precedes the joint network's last layer, which shifts that layer's name."""
    vocabulary_size: int
    """Pieces of the tokenizer; the blank is not one of them."""
    durations: tuple[int, ...]
    """Encoder frames that a token may advance by, in the order of the joint network's outputs."""
    max_symbols: int
    """Tokens that may be emitted at one encoder frame."""

    @property
    def blank(self) -> int:
        """The label for no token; the last one."""
        return self.vocabulary_size

    @property
    def n_labels(self) -> int:
        """Pieces and the blank."""
        return self.vocabulary_size + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig(TransducerConfig):
    """Everything that the network's shape and arithmetic depend on, besides its weights."""

    window_samples: int
    """Length of the spectrogram's window."""
    hop_samples: int
    n_fft: int
    n_mels: int
    preemphasis: float
    log_guard: float
    """Added to the power in a mel band before its logarithm is taken."""

    n_layers: int
    d_model: int
    n_heads: int
    d_feed_forward: int
    conv_kernel: int
    subsampling_factor: int
    """Spectrogram frames in an encoder frame: a power of two."""
    subsampling_channels: int
    xscaling: bool
    """Multiply the layers' input by the square root of `d_model`."""
    use_bias: bool
    """The layers' linears and convolutions have biases."""

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame."""
        return self.subsampling_factor * self.hop_samples / SAMPLE_RATE_HZ

    def spectrogram_frames(self, samples: int) -> int:
        """Return the spectrogram frames of a window of `samples` samples."""
        return samples // self.hop_samples

    def encoder_frames(self, samples: int) -> int:
        """Return the encoder frames of a window of `samples` samples."""
        return -(-self.spectrogram_frames(samples) // self.subsampling_factor)


def network_config(raw: Mapping[str, object]) -> NetworkConfig:
    """Read the content of a `model_config.yaml` whose `${...}` references are resolved.

    Raises `UnsupportedModel` where the configuration is not that of a network that this package computes.
    """
    model = Section("", raw)
    _require_model(model)
    encoder, joint = model.section("encoder"), model.section("joint").section("jointnet")
    joint.require("encoder_hidden", None, encoder.get("d_model"))
    return NetworkConfig(
        **_spectrogram(model.section("preprocessor")),
        **_encoder(encoder, model.section("preprocessor")),
        **_transducer(model),
    )


def transducer_config(raw: Mapping[str, object]) -> TransducerConfig:
    """Read the decoder's part of a configuration, whatever its encoder is. Raises `UnsupportedModel`."""
    return TransducerConfig(**_transducer(Section("", raw)))


def _require_model(model: Section) -> None:
    """Refuse models that are not one encoder and one transducer over one tokenizer."""
    target = str(model.get("target", _MODEL_CLASSES[0]))
    if target.rsplit(".", 1)[-1] not in _MODEL_CLASSES:
        raise model.unsupported("target", f"one of {', '.join(_MODEL_CLASSES)}")
    tokenizer = model.section("tokenizer")
    tokenizer.require("type", "bpe", "wpe", default="bpe")
    tokenizer.require("langs", None)
    for option in ("adapters", "prompt_defaults", "initialize_prompt_feature", "multisoftmax"):
        model.require_empty(option)


def _spectrogram(part: Section) -> dict[str, Any]:
    part.require_class("AudioToMelSpectrogramPreprocessor")
    part.require_defaults(
        sample_rate=SAMPLE_RATE_HZ,
        normalize="per_feature",
        log=True,
        log_zero_guard_type="add",
        frame_splicing=1,
        exact_pad=False,
        mag_power=2.0,
        pad_value=0,
    )
    part.require("window", "hann", "hamming", "blackman", "bartlett", default="hann")
    window = part.samples("window_size", "n_window_size", default_seconds=0.02)
    hop = part.samples("window_stride", "n_window_stride", default_seconds=0.01)
    n_fft = part.integer("n_fft", default=1 << (window - 1).bit_length())
    if n_fft < window:
        raise part.unsupported("n_fft", f"at least the window's {window} samples")
    return {
        "window_samples": window,
        "hop_samples": hop,
        "n_fft": n_fft,
        "n_mels": part.integer("features", default=64),
        "preemphasis": part.number("preemph", default=0.97, null=0.0),
        "log_guard": part.number("log_zero_guard_value", default=2**-24),
    }


def _encoder(part: Section, preprocessor: Section) -> dict[str, Any]:
    part.require_class("ConformerEncoder")
    part.require_defaults(
        self_attention_model="rel_pos",
        att_context_style="regular",
        global_tokens=0,
        causal_downsampling=False,
        conv_norm_type="batch_norm",
    )
    part.require("feat_in", preprocessor.integer("features", default=64))
    part.require("att_context_size", None, [-1, -1], [[-1, -1]])
    part.require("subsampling", "dw_striding")
    part.require("reduction", None, False)
    d_model, heads = part.integer("d_model"), part.integer("n_heads", default=4)
    part.require("feat_out", -1, 0, d_model, default=-1)
    if d_model % heads or d_model % 2:
        raise part.unsupported("d_model", f"an even multiple of the {heads} heads")
    kernel = part.integer("conv_kernel_size", default=31)
    if kernel % 2 == 0:
        raise part.unsupported("conv_kernel_size", "an odd number")
    part.require("conv_context_size", None, [kernel // 2, kernel // 2])
    factor = part.integer("subsampling_factor", default=4)
    if factor & (factor - 1) or factor < LEAST_SUBSAMPLING:
        raise part.unsupported("subsampling_factor", f"a power of two, at least {LEAST_SUBSAMPLING}")
    channels = part.get("subsampling_conv_channels", -1)
    return {
        "n_layers": part.integer("n_layers"),
        "d_model": d_model,
        "n_heads": heads,
        "d_feed_forward": d_model * part.integer("ff_expansion_factor", default=4),
        "conv_kernel": kernel,
        "subsampling_factor": factor,
        "subsampling_channels": d_model if channels == -1 else part.integer("subsampling_conv_channels"),
        "xscaling": part.flag("xscaling", default=True),
        "use_bias": part.flag("use_bias", default=True),
    }


def _transducer(model: Section) -> dict[str, Any]:
    decoder, joint = model.section("decoder"), model.section("joint")
    decoding = model.section("decoding", optional=True)
    decoder.require_class("RNNTDecoder")
    decoder.require("normalization_mode", None)
    decoder.require_defaults(blank_as_pad=True)
    prediction, layers = decoder.section("prednet"), joint.section("jointnet")
    size = prediction.integer("pred_hidden")
    prediction.require("rnn_hidden_size", None, -1, size, default=-1)
    joint.require_class("RNNTJoint")
    layers.require("activation", "relu")
    has_width = "encoder_hidden" in layers
    return {
        "d_encoder": layers.integer("encoder_hidden") if has_width else model.section("encoder").integer("d_model"),
        "d_prediction": size,
        "n_prediction_layers": prediction.integer("pred_rnn_layers"),
        "d_joint": layers.integer("joint_hidden"),
        "joint_dropout": bool(layers.get("dropout", 0.0)),
        "vocabulary_size": _vocabulary_size(decoder, joint),
        "durations": _durations(model, decoding, joint),
        "max_symbols": _max_symbols(decoding),
    }


def _durations(model: Section, decoding: Section, joint: Section) -> tuple[int, ...]:
    """Return the durations of a TDT transducer; plain transducers have none."""
    defaults = model.section("model_defaults", optional=True)
    given = decoding.get("durations") if "durations" in decoding else defaults.get("tdt_durations")
    durations = tuple(given) if isinstance(given, Sequence) else ()
    if not durations or not all(type(one) is int and one >= 0 for one in durations):
        raise decoding.unsupported("durations", "a list of frame counts, as TDT transducers have")
    joint.require("num_extra_outputs", len(durations), default=0)
    return durations


def _vocabulary_size(decoder: Section, joint: Section) -> int:
    """Return the number of pieces, which NeMo writes in both places."""
    size = decoder.integer("vocab_size") if "vocab_size" in decoder else joint.integer("num_classes")
    if "num_classes" in joint and joint.get("num_classes") != -1:
        joint.require("num_classes", size)
    return size


def _max_symbols(decoding: Section) -> int:
    greedy = decoding.section("greedy", optional=True)
    name = "max_symbols" if greedy.get("max_symbols") is not None else "max_symbols_per_step"
    return _DEFAULT_MAX_SYMBOLS if greedy.get(name) is None else greedy.integer(name)
