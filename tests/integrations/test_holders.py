"""transformers' MusicGen and Bark, whose codecs are inside: what they make stays what it was."""

from __future__ import annotations

from typing import Any

import pytest

transformers: Any = pytest.importorskip("transformers", reason="needs the test extra")
if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip("written for transformers 5", allow_module_level=True)

import torch  # noqa: E402  # after the skips
from integrations.small_models import small_model, snr  # noqa: E402  # after the skips

import encodec_fast as ef  # noqa: E402  # after the skips


def tiny_musicgen() -> Any:
    torch.manual_seed(0)
    codec = small_model("24khz")
    text = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=50, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2)
    )
    decoder = transformers.MusicgenForCausalLM(
        transformers.MusicgenDecoderConfig(
            vocab_size=64,
            num_hidden_layers=1,
            ffn_dim=32,
            num_attention_heads=2,
            hidden_size=16,
            num_codebooks=4,
            pad_token_id=64,
            bos_token_id=64,
        )
    )
    return transformers.MusicgenForConditionalGeneration(
        text_encoder=text, audio_encoder=codec, decoder=decoder
    ).eval()


def test_musicgen_generates_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    def audio(model: Any) -> Any:
        torch.manual_seed(1)
        model.generation_config.decoder_start_token_id = 64
        model.generation_config.pad_token_id = 64
        return model.generate(
            input_ids=torch.arange(10)[None],
            do_sample=True,
            guidance_scale=1.0,
            max_new_tokens=40,
        )

    model = tiny_musicgen()
    expected = audio(model)
    assert ef.accelerate(model) is model
    assert "audio_encoder (transformers EncodecModel)" in capsys.readouterr().err
    found = audio(model)
    assert found.shape == expected.shape and expected.std() > 1e-3
    assert snr(expected, found) > 90
    ef.restore(model)
    assert torch.equal(audio(model), expected)


def test_bark_decodes_the_same() -> None:
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "block_size": 32}
    sub = {"input_vocab_size": 80, "output_vocab_size": 80}
    codec = small_model("24khz")
    config = transformers.BarkConfig(
        semantic_config={**sizes, **sub},
        coarse_acoustics_config={**sizes, **sub},
        fine_acoustics_config={**sizes, **sub, "n_codes_total": 4},
        codec_config=codec.config.to_dict(),
    )
    model = transformers.BarkModel(config).eval()
    model.codec_model = codec
    codes = torch.randint(64, (1, 4, 30))
    with torch.no_grad():
        expected = model.codec_decode(codes)
        ef.accelerate(model, quiet=True)
        assert "AcceleratedDecoder" in repr(model.codec_model)
        assert snr(expected, model.codec_decode(codes)) > 90
