"""What the text says that the comparison can test: each claim with the figures that would show it."""

from __future__ import annotations

from collections.abc import Sequence

from vla.cli.compare.arms import NAME as GENERATIONS
from vla.cli.compare.sizes import Sizes
from vla.evaluation.claims import Claim, Expects, Term, better


def all_claims(sizes: Sizes) -> list[Claim]:
    """Returns the claims, in the order in which the text makes them."""
    smallest, largest = min(sizes.batch_sizes), max(sizes.batch_sizes)
    return [
        Claim(
            name="sigmoid_scales",
            says="Changing the batch size changes softmax's loss; sigmoid treats every pair by itself.",
            test=f"How much more retrieval gains with softmax than with sigmoid from batches of {largest} instead of "
            f"{smallest}",
            experiment="batch_sizes",
            sum_of=_interaction("clip", "siglip", largest, smallest),
        ),
        Claim(
            name="sigmoid_small_batches",
            says="Each pair is independent: no sync over the batch is needed.",
            test=f"Retrieval after sigmoid minus after softmax, batches of {smallest}",
            experiment="batch_sizes",
            sum_of=better(f"siglip_{smallest}", f"clip_{smallest}", "retrieval"),
        ),
        _claim(
            "prefix_lm",
            "Causal masking on the entire sequence limits image and prompt comprehension.",
            "Right answers with prefix-LM attention minus with causal",
            "prefix", "prefix_lm", "causal", "vqa/all",
        ),
        _claim(
            "detail",
            "Once downsampled, the detail is irrecoverable.",
            f"Right answers to detail questions at native resolution minus from a {sizes.detail_square} px square",
            "detail", "native", "fixed", "vqa/detail",
        ),
        _claim(
            "aspect_ratio",
            "A wide photo forced into a square distorts spatial relationships.",
            "Right answers on wide and tall pictures at their own shape minus stretched, with as many pixels",
            "wide", "native", "fixed", "vqa/wide",
        ),
        _claim(
            "rope_2d",
            "The 1-D ordering is incompatible with 2-D geometry.",
            "Right answers with 2-D RoPE in the tower minus with 1-D",
            "tower_rope", "rows_and_columns", "raster", "vqa/all",
        ),
        _claim(
            "rope_2d_boxes",
            "Attention encodes 2-D relative displacement.",
            "AP50 with 2-D RoPE in the tower minus with 1-D",
            "tower_rope", "rows_and_columns", "raster", "ap50",
        ),
        _claim(
            "mrope",
            "With M-RoPE the model can reason how an object moved.",
            "Right answers to motion questions with M-RoPE minus with 1-D positions",
            "mrope", "mrope", "plain", "vqa/motion",
        ),
        _claim(
            "mlp_connector",
            "A linear connector can only rotate and scale; an MLP is better.",
            "Right answers with an MLP minus with a linear layer",
            "connectors", "mlp", "linear", "vqa/all",
        ),
        _claim(
            "woven",
            "The connector remains a bottleneck; woven models have none.",
            "Right answers of the woven form minus of the MLP connector, in the same time",
            "connectors", "woven", "mlp", "vqa/all",
        ),
        _claim(
            "qwen2_vl_mends_paligemma",
            "Qwen2-VL fixes PaliGemma's limits.",
            "Right answers of Qwen2-VL minus of PaliGemma, on pictures of one size",
            GENERATIONS, "qwen2_vl", "paligemma", "vqa/all",
        ),
        _claim(
            "gemma4_mends_qwen2_vl",
            "Gemma 4 closes the connector seam that Qwen2-VL still has.",
            "Right answers of Gemma 4, woven, minus of Qwen2-VL",
            GENERATIONS, "gemma4", "qwen2_vl", "vqa/all",
        ),
        _claim(
            "two_towers",
            "DINOv2 for spatial features and SigLIP for meaning, side by side.",
            "Success with both towers minus with SigLIP alone, as many parameters",
            GENERATIONS, "prismatic", "prismatic_siglip", "success",
        ),
        _claim(
            "two_towers_actions",
            "DINOv2 for spatial features and SigLIP for meaning, side by side.",
            "Action tokens of held-out demonstrations within two bins, both towers minus SigLIP alone",
            GENERATIONS, "prismatic", "prismatic_siglip", "action_tokens",
        ),
        _claim(
            "dinov2_for_manipulation",
            "DINOv2's features are good for manipulation.",
            "Success with DINOv2 alone minus with SigLIP alone",
            GENERATIONS, "prismatic_dinov2", "prismatic_siglip", "success",
        ),
        _claim(
            "dinov2_for_manipulation_actions",
            "DINOv2's features are good for manipulation.",
            "Action tokens of held-out demonstrations within two bins, DINOv2 alone minus SigLIP alone",
            GENERATIONS, "prismatic_dinov2", "prismatic_siglip", "action_tokens",
        ),
        _claim(
            "siglip_for_instructions",
            "SigLIP's features are good for following instructions.",
            "Success under swapped instructions with SigLIP alone minus with DINOv2 alone",
            GENERATIONS, "prismatic_siglip", "prismatic_dinov2", "success_swapped",
        ),
        _claim(
            "joint_loss_keeps_answers",
            "Fine-tune on robot data with a joint loss: language and vision understanding are inherited.",
            "Right answers after joint training minus after training on actions only",
            "joint_loss", "joint", "actions_only", "vqa/all",
        ),
        Claim(
            name="joint_loss_costs_no_success",
            says="Words and actions are tokens alike and learnt together.",
            test="Success after joint training minus after training on actions only, in the same time",
            experiment="joint_loss",
            sum_of=better("joint", "actions_only", "success"),
            expects=Expects.SAME,
            negligible=0.05,
        ),
        *(
            _claim(
                f"pretraining_{count}",
                "Initialised from a pretrained VLM, a policy needs few demonstrations.",
                f"Success pretrained minus from scratch, {count} demonstrations, equal fine-tuning time",
                "pretraining", f"pretrained_{count}", f"scratch_{count}", "success",
            )
            for count in sizes.few_demonstrations
        ),
    ]  # fmt: skip


def _claim(
    name: str, says: str, test: str, experiment: str, good: str, less_good: str, metric: str
) -> Claim:
    return Claim(
        name=name,
        says=says,
        test=test,
        experiment=experiment,
        sum_of=better(good, less_good, metric),
    )


def _interaction(more: str, less: str, large: int, small: int) -> Sequence[Term]:
    """How much more `more` gains from the large size than `less` does."""
    return [
        *better(f"{more}_{large}", f"{more}_{small}", "retrieval"),
        *better(f"{less}_{small}", f"{less}_{large}", "retrieval"),
    ]
