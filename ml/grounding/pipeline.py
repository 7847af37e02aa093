"""The door: pictures with masks for words, in the manner and vocabulary of diffusers.

Not here: how masks are made (`engine.py`), and folders (`opening.py`, `saving.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ml.compute.devices import find_device
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.sampling import StepCallback
from ml.grounding import given
from ml.grounding.arguments import Generators, drawing, one, seeds_of, several, texts
from ml.grounding.config import GroundingConfig
from ml.grounding.engine import GroundingEngine
from ml.grounding.given import Picture
from ml.grounding.module import GroundingModule
from ml.grounding.opening import Opened, open_model
from ml.grounding.output import GroundedOutput, OutputType, as_output, check_output_type
from ml.grounding.saving import save_model


class GroundedDiffusionPipeline:
    """A frozen text-to-image model with a grounding module: draws pictures, and masks words.

    Of the arguments of diffusers there are no `negative_prompt`, no `num_images_per_prompt`
    (repeat the prompt in the list), and no `height` and `width`: the module is trained at one size.

    Attributes:
        pipe: the pipeline of diffusers that draws (`ml.diffusion.backbones.kinds`).
        module: the grounding module.
        engine: both together, for arrays in batches (`ml.grounding.engine`).
        queries: word in small letters -> its learned query, float32 (D,); mostly empty.
        num_inference_steps: denoising steps of a picture unless a call says otherwise, or None.
        guidance_scale: guidance of a picture unless a call says otherwise, or None.

    Examples:
        >>> from ml import GroundedDiffusionPipeline
        >>> pipe = GroundedDiffusionPipeline.from_pretrained(folder)
        >>> out = pipe("a photograph of a dog and a cat", entities=["dog", "cat"], seed=0)
        >>> out.images[0].size, list(out.masks[0]), out.masks[0]["dog"].dtype
        ((64, 64), ['dog', 'cat'], dtype('bool'))
        >>> found = pipe.ground(out.images[0], entities=["dog", "bus"])
        >>> found.masks[0]["bus"].shape
        (64, 64)
    """

    def __init__(
        self,
        pipe: Pipeline,
        module: GroundingModule,
        batch_size: int = 16,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        queries: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Joins two loaded models; `from_pretrained` opens a folder of both.

        Args:
            pipe: from `ml.diffusion.loading.load_pipeline`. The module moves to its device.
            module: trained with this diffusion model.
            batch_size: pictures at once, >= 1; fewer when the device lacks the memory for them.
            num_inference_steps: the default of calls, 2..1000.
            guidance_scale: the default of calls, in their range.
            queries: word -> learned query float (D,) (`ml.grounding.teaching`).
        """
        self.engine = GroundingEngine(pipe, module, batch_size, queries)
        self.queries = self.engine.words.learned
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale

    @property
    def pipe(self) -> Pipeline:
        return self.engine.pipe

    @property
    def module(self) -> GroundingModule:
        return self.engine.module

    @property
    def config(self) -> GroundingConfig:
        """The grounding module's; `config.picture_size` is the side of a picture in pixels."""
        return self.engine.config

    @property
    def device(self) -> torch.device:
        """That both models are on."""
        return device_of(self.pipe)

    @property
    def dtype(self) -> torch.dtype:
        """Of the diffusion model's weights; the module's are float32."""
        return self.pipe.dtype

    def to(self, device: str | torch.device) -> Self:
        """Moves the diffusion model and the module, whose dtypes stay; returns itself.

        device: as in `from_pretrained`, or torch's own. Raises ValueError for a missing one.
        """
        self.engine.to(find_device(str(device)))
        return self

    def __call__(
        self,
        prompt: str | Sequence[str],
        entities: Sequence[str] | Sequence[Sequence[str]],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: Generators | None = None,
        seed: int | Sequence[int] | None = None,
        output_type: OutputType = "pil",
        phrases: Sequence[str] | Sequence[Sequence[str]] | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> GroundedOutput:
        """Draws a picture for each prompt and masks the words that are asked for in it.

        A picture depends on its own prompt and seed alone, not on the others of the call.

        Args:
            prompt: one prompt, or a list of B prompts.
            entities: the words to mask, as they stand in the prompt ("dining table"): a flat list
                for one prompt, a list of B lists for a list of prompts.
            num_inference_steps: denoising steps, 2..1000; by default those of the model's folder.
            guidance_scale: above 1 (FLUX dev: 0) and up to 100; by default the folder's.
            generator: a `torch.Generator`, or one for each picture. The seed of each picture is
                drawn from it (`torch.randint`), so that a generator's next call gives other
                pictures, and one that is seeded alike gives the same ones on every device.
            seed: 0..2**32-1, instead of a generator: of the first picture, and the next ones have
                the numbers after it; or one for each picture. With neither, seeds come from torch's
                global generator; `GroundedOutput.seeds` names them.
            output_type: "pil", "np" or "pt" (`GroundedOutput`).
            phrases: for each word what the contrast leaves out of the prompt ("a red dog"); by
                default the word and its article.
            callback_on_step_end: as in diffusers, `callback(pipe, step, timestep, kwargs)` with
                `kwargs["latents"]` (b,C,h,w), where `pipe` is the pipeline of diffusers; returns
                the dictionary to go on with. Called for every batch. It may neither interrupt the
                drawing nor switch the guidance off, nor use the model for something else.

        Returns:
            GroundedOutput: B pictures, and a mask (H,W) for each of their words.

        Raises:
            ValueError: no prompt, lists of unequal length, a word or phrase that is not in its
                prompt or is asked for twice, a prompt longer than the text encoder reads, a number
                out of its range, both a generator and a seed, an unknown output type, no steps or
                guidance where the folder names none, or a callback that does what it may not.
            OutOfMemory: the device has not enough memory for a single picture.

        Examples:
            >>> out = pipe(
            ...     ["a photograph of a dog", "a photograph of a bus"],
            ...     entities=[["dog"], ["bus"]],
            ...     num_inference_steps=4,
            ...     seed=[3, 4],
            ...     output_type="np",
            ... )
            >>> out.images.shape, out.images.dtype, out.seeds
            ((2, 64, 64, 3), dtype('float32'), [3, 4])
            >>> [sorted(masks) for masks in out.masks]
            [['dog'], ['bus']]
            >>> bool(0 <= out.probabilities[1]["bus"].min() <= 1)
            True
        """
        check_output_type(output_type)
        prompts, single = texts("prompt", prompt)
        words = (one if single else several)("entities", entities)
        named = None if phrases is None else (one if single else several)("phrases", phrases)
        seeds = seeds_of(seed, generator, len(prompts))
        steps: int = drawing("num_inference_steps", num_inference_steps, self.num_inference_steps)
        guidance: float = drawing("guidance_scale", guidance_scale, self.guidance_scale)
        made = self.engine.draw(
            prompts,
            words,
            seeds=seeds,
            steps=steps,
            guidance_scale=guidance,
            phrases=named,
            callback=callback_on_step_end,
        )
        return as_output(made, list(made.images), words, output_type, seeds)

    def ground(
        self,
        image: Picture | Sequence[Picture],
        entities: Sequence[str] | Sequence[Sequence[str]],
        *,
        min_presence: float | None = None,
        prompt: str | Sequence[str] | None = None,
        phrases: Sequence[str] | Sequence[Sequence[str]] | None = None,
        timestep: int | None = None,
        seed: int = 0,
        output_type: OutputType = "pil",
    ) -> GroundedOutput:
        """Masks words in given pictures, drawn ones and photographs.

        A picture of another size than the model's is squeezed into the model's square, and its
        masks come back at its own size, no finer than the model's pixels.

        Args:
            image: a PIL picture or a file's path, both read as a viewer shows them (turned as the
                EXIF flag says, transparency on white); an array (H,W,3) RGB, uint8 or float in
                0..1; or a tensor (3,H,W), float in 0..1. Or a list of B of them, an array (B,H,W,3)
                or a tensor (B,3,H,W), so that `GroundedOutput.images` of every type goes in.
            entities: the words to look for: a flat list for one picture, else B lists.
            min_presence: words with a lower presence score (`ml.grounding.presence`, any finite
                number; 0.01 is good for the micro model) get an empty mask and probability 0, and
                the others are grounded as if they alone had been asked for. By default every word
                is taken to be there.
            prompt: what the picture shows, with the words in it; by default composed of the words.
                One text for one picture, else B.
            phrases: as in a call of the pipeline.
            timestep: that the picture is noised to, 0..999; by default that of the training.
            seed: of this noise, 0..2**32-1, one for all pictures.
            output_type: "pil", "np" or "pt" (`GroundedOutput`).

        Returns:
            GroundedOutput: the given pictures, and a mask (H,W) for each word at their own sizes.

        Raises:
            ValueError: what is no picture, lists of unequal length, no word for a picture, a word
                or phrase that is not in its prompt or is asked for twice, texts that are longer
                than the text encoder reads, a number out of its range, or an unknown output type.
            OutOfMemory: the device has not enough memory for a single picture.

        Examples:
            >>> found = pipe.ground(picture, entities=["dog", "bus"], min_presence=0.01)
            >>> found.masks[0]["dog"].shape == (picture.height, picture.width)
            True
            >>> list(found.presence[0]), found.presence[0]["dog"] >= 0
            (['dog', 'bus'], True)
        """
        check_output_type(output_type)
        own, single = given.pictures_of(image)
        words = (one if single else several)("entities", entities)
        named = None if phrases is None else (one if single else several)("phrases", phrases)
        side = self.config.picture_size
        found = self.engine.ground(
            np.stack([given.squared(picture, side) for picture in own]),
            words,
            None if prompt is None else texts("prompt", prompt)[0],
            timestep,
            named,
            seed,
            min_presence,
        )
        return as_output(found, own, words, output_type)

    def save_pretrained(
        self,
        folder: Path | str,
        diffusion: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        """Writes a folder that `from_pretrained` opens, or raises ValueError.

        Args:
            folder: made where it is missing. Gets `grounding/`, `pipeline.json` (scheduler, dtype,
                batch size, steps, guidance, taught words) and, without `diffusion`, the model.
            diffusion: a hub id, or an absolute folder, that is written down instead of a copy.
            revision: of the hub id, never without it.
            variant: of the hub id's files ("fp16"), never without it.
        """
        drawing = self.engine.batches.size, self.num_inference_steps, self.guidance_scale
        model = Opened(self.pipe, self.module, *drawing, self.queries)
        save_model(Path(folder), model, diffusion, revision, variant)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "cpu") -> Self:
        """Opens a folder.

        Args:
            folder: written by `save_pretrained`; or of the stage `grounding_model`
                (`data/<profile>/grounding_model`), whose manifest names the diffusion model; or a
                registered model that was downloaded (`mlflow artifacts download --artifact-uri
                models:/grounding@champion --dst-path FOLDER`).
            device: "cpu", "cuda", "cuda:1" or "auto" (CUDA where there is one). On a CPU weights
                are float32, else as the folder says.

        Returns:
            GroundedDiffusionPipeline: drawing with the scheduler, steps and guidance of the folder.

        Raises:
            ValueError: an address of the registry, what is no folder's path, a folder that is not
                there, another folder, a damaged one, a diffusion model
                that cannot be loaded or is not the one that the module was trained with, or a
                device that is not there.

        Examples:
            >>> pipe = GroundedDiffusionPipeline.from_pretrained(folder, device="cpu")
            >>> pipe.config.picture_size, pipe.num_inference_steps, pipe.guidance_scale
            (64, 15, 4.0)
        """
        own = open_model(folder, device)
        return cls(own.pipe, own.module, own.batch_size, own.steps, own.guidance_scale, own.queries)
