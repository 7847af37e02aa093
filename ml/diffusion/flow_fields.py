"""The configuration fields of diffusion transformers, each followed or refused: the twins of a
U-Net's (`ml.diffusion.fields`)."""

from ml.diffusion.fields import CLIP_RULES, TIMESTEPS_RULE, VAE_RULES, Model, Rule

SHIFT = Rule(
    "vae",
    "shift_factor",
    lambda value, _: isinstance(value, int | float),
    "a number: the pipelines of Stable Diffusion 3 and FLUX shift latents by it (0 for none)",
)
NOISE_RULES = (
    TIMESTEPS_RULE,
    Rule(
        "scheduler",
        "shift",
        lambda value, _: isinstance(value, int | float) and value > 0,
        "a number above 0: how far the steps lie towards the noise",
    ),
    Rule(
        "scheduler",
        "invert_sigmas",
        lambda value, _: not value,
        "false: pictures are drawn from noise to no noise",
    ),
    Rule(
        "scheduler",
        "stochastic_sampling",
        lambda value, _: not value,
        "false: noise that is added on the way is drawn for a whole batch, and a picture would "
        "depend on its neighbours",
    ),
)


def _t5(value: object, _: Model) -> bool:
    return value in (None, "t5")


def _widths(model: Model, field: str) -> list[int]:
    return [
        config.get(field, 512)
        for part, config in model.configs.items()
        if part in ("text_encoder", "text_encoder_2")
    ]


SD3_RULES = (
    *VAE_RULES,
    SHIFT,
    *NOISE_RULES,
    *CLIP_RULES,
    Rule("text_encoder_3", "model_type", _t5, "t5: the weights are read as T5's"),
    Rule(
        "transformer",
        "sample_size",
        lambda value, model: (
            isinstance(value, int)
            and value > 0
            and value % model.configs["transformer"]["patch_size"] == 0
        ),
        "a side in latent pixels, a multiple of patch_size",
    ),
    Rule(
        "transformer",
        "in_channels",
        lambda value, model: bool(value == model.configs["vae"]["latent_channels"]),
        "the VAE's latent_channels: an inpainting or editing transformer has more and wants a "
        "picture too; take the text-to-image model",
    ),
    Rule(
        "transformer",
        "out_channels",
        lambda value, model: value in (None, model.configs["vae"]["latent_channels"]),
        "the VAE's latent_channels: what it predicts is the velocity of latents",
    ),
    Rule(
        "transformer",
        "pooled_projection_dim",
        lambda value, model: value == sum(_widths(model, "projection_dim")),
        "the projection_dim of text_encoder and text_encoder_2 together",
    ),
    Rule(
        "transformer",
        "joint_attention_dim",
        lambda value, model: (
            value >= sum(_widths(model, "hidden_size"))
            and value == model.configs.get("text_encoder_3", {}).get("d_model", value)
        ),
        "the width of T5 (text_encoder_3), and at least that of both CLIP encoders together, whose "
        "states are filled up to it",
    ),
)
FLUX_RULES = (
    *VAE_RULES,
    SHIFT,
    *NOISE_RULES,
    CLIP_RULES[0],
    Rule("text_encoder_2", "model_type", _t5, "t5: the weights are read as T5's"),
    Rule(
        "transformer",
        "in_channels",
        lambda value, model: bool(value == 4 * model.configs["vae"]["latent_channels"]),
        "four times the VAE's latent_channels, two by two latent pixels a token: FLUX's Fill, "
        "Canny, Depth and Redux models want a picture too; take dev or schnell",
    ),
    Rule(
        "transformer",
        "out_channels",
        lambda value, model: value in (None, model.configs["transformer"]["in_channels"]),
        "null or in_channels: what it predicts is the velocity of latents",
    ),
    Rule(
        "transformer",
        "patch_size",
        lambda value, _: value == 1,
        "1: latents are packed two by two before",
    ),
    Rule(
        "transformer",
        "pooled_projection_dim",
        lambda value, model: value == model.configs["text_encoder"].get("hidden_size", 512),
        "the hidden_size of text_encoder",
    ),
    Rule(
        "transformer",
        "joint_attention_dim",
        lambda value, model: value == model.configs["text_encoder_2"].get("d_model", 512),
        "the width of T5 (text_encoder_2)",
    ),
)
"""qk_norm, dual_attention_layers, guidance_embeds and the rest of the transformers' fields are
honoured by their classes; use_dynamic_shifting, base_shift, max_shift, shift_terminal and the
sigma schedules by the scheduler and its pipeline."""
