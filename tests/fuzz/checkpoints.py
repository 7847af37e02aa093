"""Models people bring: configurations with other fields, weights that are missing, of another model
or damaged, tokenizers without their files. All are copies of tiny ones."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz import saved_models
from tests.fuzz.edits import (
    copy_of,
    profile_of,
    tiny_models,
    with_bytes,
    with_json,
    with_weights,
    without,
)
from tests.fuzz.harness import Case
from tests.fuzz.parts import rows, stage

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model",
    "vae/diffusion_pytorch_model",
    "text_encoder/model",
)


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [*_diffusion(rng), *saved_models.cases(rng)]
        yield from rng.sample(every, len(every))


def _case(name: str, edit: Callable[[Path], object], sound: bool, *names, **settings) -> Case:
    """The stage `images` with the model as it was edited."""

    def prepare(folder: Path) -> list[str]:
        model = copy_of(Path(tiny_models().name, "model"), folder / "model")
        edit(model)
        shutil.copytree(Path(tiny_models().name, "root"), folder / "root", dirs_exist_ok=True)
        (folder / "root/data/yard/.state/profile.json").unlink()
        diffusion = {"model": str(model), "steps": 2, "batch_size": 8} | settings
        return stage(folder, "images", profile_of(folder, diffusion=diffusion))

    def check(folder: Path, _) -> str | None:
        made = rows(folder, "images")
        return None if len(made) and made["std"].gt(0).all() else "no pictures, or blank ones"

    return Case(
        "checkpoints",
        name,
        sound,
        prepare,
        names=names,
        check=check,
        ours=("root/data/yard/.locks/*",),
    )


def _weights_cases(rng) -> Iterator[tuple[str, Callable, str]]:
    """(what, edit, the part)"""
    for file in (UNET, VAE, TEXT):
        part, _, _ = file.partition("/")

        number = rng.randrange(10**6)

        def pick(tensors: dict, number=number) -> str:
            names = sorted(name for name in tensors if tensors[name].ndim)
            return names[number % len(names)]

        def nan(tensors, pick=pick) -> None:
            tensors[pick(tensors)].view(-1)[0] = float(rng.choice(("nan", "inf")))

        def renamed(tensors, pick=pick) -> None:
            name = pick(tensors)
            base, _, last = name.rpartition(".")
            tensors[f"{base}.base_layer.{last}"] = tensors.pop(name)

        def longer(tensors, pick=pick) -> None:
            name = pick(tensors)
            tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].ndim - 1))

        def more(tensors, pick=pick) -> None:
            tensors["an.adapter.weight"] = tensors[pick(tensors)].clone()

        def less(tensors, pick=pick) -> None:
            del tensors[pick(tensors)]

        yield f"{part}: a weight less", with_weights(file, less), part
        yield f"{part}: NaN", with_weights(file, nan), part
        yield f"{part}: a LoRA's names", with_weights(file, renamed), part
        yield f"{part}: another shape", with_weights(file, longer), part
        yield f"{part}: one more", with_weights(file, more), part
        for what, change in (
            ("cut", lambda data: data[: len(data) // 2]),
            ("empty", lambda data: b""),
            ("HTML", lambda data: b"<html>" * 99),
            ("a head of garbage", lambda data: data[:8] + b"\xff" * 40 + data[48:]),
            ("an endless head", lambda data: b"\xff" * 8 + data[8:]),
            (
                "a Git LFS pointer",
                lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            ),
        ):
            yield f"{part}: weights {what}", with_bytes(f"{file}.safetensors", change), part
        yield f"{part}: no weights", without(f"{file}.safetensors"), part


CONFIGS = {
    "unet/config.json": {
        "time_cond_proj_dim": 16,
        "in_channels": 9,
        "out_channels": 12,
        "class_embed_type": "timestep",
        "num_class_embeds": 10,
        "encoder_hid_dim": 8,
        "addition_embed_type": "text",
        "cross_attention_dim": 32,
        "sample_size": [16, 24],
        "attention_type": "gated",
        "dual_cross_attention": True,
        "only_cross_attention": True,
        "invented_field": 3,
        "cross_attention_norm": "layer_norm",
        "block_out_channels": [8, 16],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D"] * 3,
        "norm_num_groups": 7,
        "attention_head_dim": 3,
        "act_fn": "nothing",
        "conv_in_kernel": 5,
        "resnet_time_scale_shift": "scale_shift",
        "time_embedding_type": "fourier",
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "sample_size ": None,
        "dropout": "many",
        "center_input_sample": "perhaps",
    },
    "vae/config.json": {
        "scaling_factor": 0,
        "latents_mean": [0.1] * 6,
        "shift_factor": 0.1,
        "in_channels": 4,
        "latent_channels": 4,
        "block_out_channels": [8, 16],
        "norm_num_groups": 5,
        "out_channels": 1,
        "up_block_types": ["UpDecoderBlock2D"],
        "invented": "x",
    },
    "text_encoder/config.json": {
        "hidden_size": 32,
        "vocab_size": 10,
        "max_position_embeddings": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 8,
        "model_type": "bert",
        "hidden_act": "nothing",
    },
    "scheduler/scheduler_config.json": {
        "num_train_timesteps": 50,
        "prediction_type": "flow",
        "beta_schedule": "unknown",
        "trained_betas": [0.1, 0.2],
        "beta_start": "x",
        "beta_end": float("nan"),
        "thresholding": True,
    },
    "model_index.json": {
        "_class_name": "FluxPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "scheduler": ["diffusers", "EDMEulerScheduler"],
        "tokenizer": [None, None],
    },
}
"""Of which each alone makes another model of it, or none."""
HONOURED = {
    "unet/config.json": {"_name_or_path": "elsewhere", "_diffusers_version": "0.1"},
    "vae/config.json": {"scaling_factor": 0.5, "force_upcast": False, "sample_size": 512},
    "scheduler/scheduler_config.json": {
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "clip_sample": True,
        "prediction_type": "epsilon",
    },
    "model_index.json": {"safety_checker": [None, None], "_name_or_path": "elsewhere"},
    "tokenizer/tokenizer_config.json": {"model_max_length": 10**30},
}


def _diffusion(rng) -> Iterator[Case]:
    for what, edit, part in _weights_cases(rng):
        yield _case(f"{what} ({rng.randrange(1000)})", edit, False, part)
    for file, fields in CONFIGS.items():
        for field, value in fields.items():
            if value is None:
                continue
            says = {"max_position_embeddings": "tokens", "hidden_size": "text encoders"}.get(
                field, file.split("/")[0]
            )
            yield _case(
                f"{file}: {field} = {value!r}",
                with_json(file, **{field: value}),
                False,
                (says, field),
            )
        for text in ("", "{}", "[]", "null", "{", "\xff", "7", "[" * 100_000):
            yield _case(
                f"{file}: {text[:9]!r}",
                with_bytes(file, lambda _, text=text: text.encode("latin-1")),
                False,
                (file.split("/")[0], "model"),
            )
        yield _case(f"{file}: gone", without(file), False, (file.split("/")[0], "model"))
    for file, fields in HONOURED.items():
        for field, value in fields.items():
            yield _case(
                f"{file}: {field} = {value!r}, honoured", with_json(file, **{field: value}), True
            )
    yield _case("plain", lambda model: None, True)
    for file in ("tokenizer", "text_encoder", "unet", "vae", "scheduler"):
        yield _case(f"no {file}", without(file), False, (file, "model"))
    for name in os.listdir(Path(tiny_models().name, "model/tokenizer")):
        for what, change in (
            ("empty", lambda data: b""),
            ("half", lambda data: data[: len(data) // 2]),
            ("[]", lambda data: b"[]"),
        ):
            if name in ("tokenizer.json", "vocab.json"):
                yield _case(
                    f"tokenizer/{name} {what}",
                    with_bytes(f"tokenizer/{name}", change),
                    False,
                    ("tokenizer", "model"),
                )
    yield _case(
        "pickled",
        lambda model: (model / f"{UNET}.safetensors").rename(model / f"{UNET}.bin"),
        False,
        "unet",
    )
    for settings, says in (
        ({"variant": "fp16"}, "fp16"),
        ({"scheduler": "Nothing"}, "Nothing"),
        ({"scheduler": "EDMEulerScheduler"}, "EDMEuler"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "FlowMatch"),
        ({"scheduler": "AutoencoderKL"}, "AutoencoderKL"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"device": "mps"}, "mps"),
    ):
        yield _case(f"settings {settings}", lambda model: None, False, says, **settings)
