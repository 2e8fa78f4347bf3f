"""Reading one part of a NeMo configuration, with errors that name the option, its value and what is known."""

import math
from collections.abc import Mapping
from textwrap import shorten
from typing import Self

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
