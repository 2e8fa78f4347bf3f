"""The names and shapes of the weights that a configuration asks for, as NeMo writes them."""

from collections.abc import Iterator

from worker.adapters.parakeet.network.config import NetworkConfig

Shape = tuple[int, ...]

_KERNEL = 3
"""Size of the subsampling's convolutions in both directions."""


def weight_shapes(config: NetworkConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of every weight that the configuration asks for."""
    yield "preprocessor.featurizer.window", (config.window_samples,)
    yield "preprocessor.featurizer.fb", (1, config.n_mels, config.n_fft // 2 + 1)
    yield from _subsampling(config)
    for layer in range(config.n_layers):
        for name, shape in _layer(config):
            yield f"encoder.layers.{layer}.{name}", shape
    yield from _transducer(config)


def _subsampling(config: NetworkConfig) -> Iterator[tuple[str, Shape]]:
    channels, steps = config.subsampling_channels, config.subsampling_factor.bit_length() - 1
    bands = config.n_mels
    for step in range(steps):
        bands = (bands - 1) // 2 + 1
        place = 0 if step == 0 else 3 * step - 1  # each step but the first: depthwise, pointwise, activation
        yield f"encoder.pre_encode.conv.{place}.weight", (channels, 1, _KERNEL, _KERNEL)
        yield f"encoder.pre_encode.conv.{place}.bias", (channels,)
        if step:
            yield f"encoder.pre_encode.conv.{place + 1}.weight", (channels, channels, 1, 1)
            yield f"encoder.pre_encode.conv.{place + 1}.bias", (channels,)
    yield "encoder.pre_encode.out.weight", (config.d_model, channels * bands)
    yield "encoder.pre_encode.out.bias", (config.d_model,)


def _layer(config: NetworkConfig) -> Iterator[tuple[str, Shape]]:
    width, inner = config.d_model, config.d_feed_forward
    matrices: list[tuple[str, Shape]] = [
        *((f"self_attn.linear_{one}", (width, width)) for one in ("q", "k", "v", "out")),
        ("conv.pointwise_conv1", (2 * width, width, 1)),
        ("conv.depthwise_conv", (width, 1, config.conv_kernel)),
        ("conv.pointwise_conv2", (width, width, 1)),
    ]
    for number in (1, 2):
        matrices += [
            (f"feed_forward{number}.linear1", (inner, width)),
            (f"feed_forward{number}.linear2", (width, inner)),
        ]
    for name, shape in matrices:
        yield f"{name}.weight", shape
        if config.use_bias:
            yield f"{name}.bias", shape[:1]
    yield "self_attn.linear_pos.weight", (width, width)
    for one in "uv":
        yield f"self_attn.pos_bias_{one}", (config.n_heads, width // config.n_heads)
    for norm in (
        "norm_feed_forward1",
        "norm_self_att",
        "norm_conv",
        "norm_feed_forward2",
        "norm_out",
        "conv.batch_norm",
    ):
        yield f"{norm}.weight", (width,)
        yield f"{norm}.bias", (width,)
    yield "conv.batch_norm.running_mean", (width,)
    yield "conv.batch_norm.running_var", (width,)


def _transducer(config: NetworkConfig) -> Iterator[tuple[str, Shape]]:
    size, joint = config.d_prediction, config.d_joint
    yield "decoder.prediction.embed.weight", (config.n_labels, size)
    for layer in range(config.n_prediction_layers):
        for kind in ("ih", "hh"):
            yield f"decoder.prediction.dec_rnn.lstm.weight_{kind}_l{layer}", (4 * size, size)
            yield f"decoder.prediction.dec_rnn.lstm.bias_{kind}_l{layer}", (4 * size,)
    outputs = config.n_labels + len(config.durations)
    for name, shape in (
        ("enc", (joint, config.d_model)),
        ("pred", (joint, size)),
        (f"joint_net.{2 if config.joint_dropout else 1}", (outputs, joint)),
    ):
        yield f"joint.{name}.weight", shape
        yield f"joint.{name}.bias", shape[:1]
