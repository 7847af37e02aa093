"""What the paper's authors' grounding checkpoint holds, and which tensor of ours each becomes.

The shape of their module, its names, the order of its channels (method.md 1). Not here: the
conversion (`ml.grounding.authors`).
"""

from ml.grounding.config import PARTS, GroundingConfig

CONFIG = GroundingConfig(
    variant="paper",
    feature_channels={8: 15360, 16: 14080, 32: 8320, 64: 5120},
    encoder_widths=(16, 32, 64, 128),
    text_width=768,
    width=512,
    layers=3,
    heads=8,
    patch=4,
    upsampling=8,
    learned_doublings=0,
    pixel_width=240,
    evidence_timesteps=(),
    feature_timestep=1,
    lone_block=False,
    **PARTS["paper"],
)
"""Their module: it fits one diffusion model's shape, whatever a profile says."""

BLOCKS = {
    8: (1280, 1280, 1280, 1280, 1280, 1280),
    16: (640, 1280, 1280, 1280, 1280, 1280),
    32: (320, 640, 640, 1280, 640, 640),
    64: (320, 320, 320, 640, 320, 320, 320),
}
"""Channels of the U-Net's blocks by resolution, in its order. Theirs has both guidance halves of
each block side by side, ours all blocks of the one half and then all of the other."""

TABLE = (
    # theirs, ours, what becomes of it
    ("low_feature_conv.0.weight", "encoder.reduce.0.weight", "halves"),
    ("mid_feature_conv.0.weight", "encoder.reduce.1.weight", "halves"),
    ("high_feature_conv.0.weight", "encoder.reduce.2.weight", "halves"),
    ("highest_feature_conv.0.weight", "encoder.reduce.3.weight", "halves"),
    ("{level}_mix_conv.conv{n}.weight", "{block}.conv{n}.{normed}.original", "same"),
    ("{level}_mix_conv.conv{n}.bias", "{block}.conv{n}.bias", "same"),
    ("{level}_mix_conv.conv{n}.u0", "{block}.conv{n}.{normed}", "norm"),
    ("{level}_mix_conv.conv{n}.sv0", "", "number"),
    ("{level}_mix_conv.stored_mean{n}", "{block}.conv{n}.bias", "unread"),
    ("{level}_mix_conv.stored_var{n}", "{block}.conv{n}.bias", "unread"),
    ("to_k.weight", "to_k.weight", "same"),
    ("to_q.weight", "to_q.weight", "same"),
    ("{decoder}.self_attn.in_proj_weight", "{layer}.self_attention", "thirds"),
    ("{decoder}.self_attn.out_proj.weight", "{layer}.self_attention.out.weight", "same"),
    ("{decoder}.multihead_attn.in_proj_weight", "{layer}.cross_attention", "thirds"),
    ("{decoder}.multihead_attn.out_proj.weight", "{layer}.cross_attention.out.weight", "same"),
    ("{decoder}.linear1.weight", "{layer}.ffn.0.weight", "same"),
    ("{decoder}.linear1.bias", "{layer}.ffn.0.bias", "same"),
    ("{decoder}.linear2.weight", "{layer}.ffn.2.weight", "same"),
    ("{decoder}.linear2.bias", "{layer}.ffn.2.bias", "same"),
    ("{decoder}.norm1.weight", "{layer}.norm_self.weight", "same"),
    ("{decoder}.norm1.bias", "{layer}.norm_self.bias", "same"),
    ("{decoder}.norm2.weight", "{layer}.norm_cross.weight", "same"),
    ("{decoder}.norm2.bias", "{layer}.norm_cross.bias", "same"),
    ("{decoder}.norm3.weight", "{layer}.norm_ffn.weight", "same"),
    ("{decoder}.norm3.bias", "{layer}.norm_ffn.bias", "same"),
    ("mlp.layers.0.weight", "mask_embedding.0.weight", "same"),
    ("mlp.layers.0.bias", "mask_embedding.0.bias", "same"),
    ("mlp.layers.1.weight", "mask_embedding.2.weight", "same"),
    ("mlp.layers.1.bias", "mask_embedding.2.bias", "same"),
    ("mlp.layers.2.weight", "mask_embedding.4.weight", "same"),
    ("mlp.layers.2.bias", "mask_embedding.4.bias", "same"),
)
"""Every tensor of theirs. Halves: its columns are put into our order (BLOCKS). Norm: the vector of
the spectral norm's power iteration, from which both of ours come. Thirds: queries, keys and values
in one. Number: the singular value as it was logged, and unread: the running figures of a BatchNorm
that never leaves training mode; neither is used, by them or by us."""

PLACES = [
    {
        "level": level,
        "block": f"encoder.blocks.{at}",
        "n": n,
        "normed": "parametrizations.weight",
        "decoder": f"transfromer_decoder.layers.{layer}",  # the misspelling is theirs
        "layer": f"layers.{layer}",
    }
    for at, level in enumerate(("mid_feature", "high_feature", "highest_feature"))
    for n in (1, 2)
    for layer in range(CONFIG.layers)
]
"""What the names in braces of TABLE stand for."""

ROWS = {
    theirs.format(**place): (ours.format(**place), how)
    for theirs, ours, how in TABLE
    for place in PLACES
}
"""TABLE written out: the name in their checkpoint -> (ours, what becomes of it)."""
