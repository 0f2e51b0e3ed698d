from typing import Any

import pytest
import torch
from torch.testing import assert_close

from model.config import GammaConfig
from model.encoder import build_encoder, encode
from model.network import IGNORE, GammaModel, GammaOutput
from model.reference import ReferenceModel
from tests.model.agreement import assert_agree

ABLATIONS = [
    {"heads": "none"},
    {"heads": "ai"},
    {"heads": "manipulation"},
    {"cross_attention": "none"},
    {"cross_attention": "forward"},
    {"cross_attention": "dual"},
    {"cross_attention": "reverse"},
    {"cross_attention": "reverse", "key_value": "pooled"},
    {"cross_attention": "dual", "key_value": "pooled", "heads": "ai"},
    {"ai_weight": 3.0, "manipulation_weight": 0.5, "classification_weight": 1.0},
    {"backbone": "pvt_v2_b2"},
]


def batch(height: int, width: int, count: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=generator).float()
    labels = torch.arange(count) % 2 * 1.0
    masks = torch.randint(0, 2, (2, count, height, width), generator=generator, dtype=torch.uint8)
    masks[:, :, : height // 3] = IGNORE
    return pixels, labels, *masks


def run(network: torch.nn.Module, data: tuple[torch.Tensor, ...]) -> tuple[GammaOutput, Any]:
    torch.manual_seed(2)  # the same layers are dropped
    network.zero_grad()
    output = network(*data)
    output.loss.backward()
    return output, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def assert_same(
    ours: dict[str, torch.Tensor], reference: dict[str, torch.Tensor], tolerance: float = 1e-5
) -> None:
    for name, expected in reference.items():
        assert_agree(ours[name], expected, tolerance)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda a: "-".join(map(str, a.values())))
def test_outputs_loss_and_gradients_match_the_equations(make_model, ablation, training):
    model = make_model(**ablation).train(training)
    data = batch(64, 96)
    statistics = {n: b.clone() for n, b in model.named_buffers()}
    ours, gradients = run(model, data)
    own_statistics = {n: b.clone() for n, b in model.named_buffers()}
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])
    reference, expected = run(ReferenceModel(model).train(training), data)
    assert_same(dict(ours), dict(reference))
    assert_same(dict(model.named_buffers()), own_statistics)
    assert_same(gradients, {name.removeprefix("model."): g for name, g in expected.items()})


@pytest.mark.parametrize("ablation", ABLATIONS[:-1], ids=lambda a: "-".join(map(str, a.values())))
def test_double_precision_differs_only_by_rounding(make_model, ablation):
    """In double precision even the smallest gradients leave no room for a wrong term."""
    model = make_model(**ablation).double().eval()
    pixels = batch(64, 96)[0].double()
    gradients = []
    for network in (model, ReferenceModel(model)):
        output = network(pixels)
        sum(tensor.sin().sum() for tensor in output.to_tuple()).backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
        model.zero_grad()
    assert_same(*gradients, tolerance=1e-11)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (67, 93), (130, 33), (101, 256)])
def test_odd_sizes_match_the_equations(make_model, height, width):
    model = make_model().eval()
    data = batch(height, width)
    ours, gradients = run(model, data)
    reference, expected = run(ReferenceModel(model), data)
    assert ours.ai.shape == (2, -(-height // 4), -(-width // 4))
    assert_same(dict(ours), dict(reference))
    assert_same(gradients, {name.removeprefix("model."): g for name, g in expected.items()})


@pytest.mark.parametrize("backbone", ["mit_b0", "mit_b2"])
def test_encoder_matches_library(backbone):
    torch.manual_seed(0)
    encoder = build_encoder(backbone).eval()
    pixels = torch.randn(1, 3, 70, 96)
    with torch.inference_mode():
        expected = encoder(pixels, output_hidden_states=True).hidden_states
        ours = encode(encoder, pixels)
    for own, reference in zip(ours, expected, strict=True):
        assert_close(own.permute(0, 3, 1, 2), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("key_value", "influence"), [("pooled", False), ("tokens", True)])
def test_segmentation_reaches_the_image_logit_through_tokens_only(make_model, key_value, influence):
    model = make_model(key_value=key_value).eval()
    pixels = batch(64, 64)[0]
    before = model(pixels).logits
    before.sum().backward()
    asking = [*model.decoders.parameters()]
    asking += [a.q_proj.weight for a in model.reverse_attention.values()]
    total = sum(p.grad.abs().sum().item() for p in asking if p.grad is not None)
    with torch.no_grad():
        for parameter in asking:
            parameter.mul_(-3)
    # Not "nearly": the softmax over a single key is exactly 1 whatever its score is, so the
    # scores' gradient is exactly 0.
    assert (total > 0) is influence
    assert torch.equal(model(pixels).logits, before) is not influence


def test_mean_of_the_tokens_is_the_classification_feature(make_model):
    model = make_model().eval()
    last = encode(model.encoder, batch(64, 96)[0])[-1].flatten(1, 2)
    tokens = model.cls_projection(last)
    assert_close(tokens.mean(1), model.cls_projection(last.mean(1)), atol=1e-5, rtol=0)


def test_ignored_pixels_do_not_count(make_model):
    model = make_model().eval()
    pixels, _, ai, _ = batch(64, 64)
    whole = torch.full_like(ai, IGNORE)
    assert model(pixels, ai_labels=whole).loss.item() == 0
    # The second picture does not supervise: the loss is that of the first alone.
    ai[0], ai[1] = 1, IGNORE
    both, first = model(pixels, ai_labels=ai), model(pixels[:1], ai_labels=ai[:1])
    assert_close(both.ai_loss, first.ai_loss)


def test_loss_is_the_weighted_sum_of_the_terms_with_labels(make_model):
    model = make_model().eval()
    pixels, labels, ai, manipulation = batch(64, 64)
    output = model(pixels, labels, ai, manipulation)
    expected = 2 * output.classification_loss + 2 * output.ai_loss + output.manipulation_loss
    assert_close(output.loss, expected)
    assert_close(model(pixels, labels).loss, 2 * output.classification_loss)
    assert model(pixels).loss is None


def test_every_parameter_has_a_gradient(make_model):
    model = make_model(cross_attention="dual").train()
    _, gradients = run(model, batch(64, 64))
    assert gradients.keys() == dict(model.named_parameters()).keys()


def test_merging_is_not_rounded_by_autocast(make_model):
    model = make_model().eval()
    with torch.autocast("cpu", torch.bfloat16):
        merged = model.merge()
    assert merged["ai"].stages[0].dtype == torch.float32


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_autocast_computes_nearly_the_same_loss_and_gradients(make_model, training):
    model = make_model(cross_attention="dual").train(training)
    data = batch(64, 96)
    expected, gradients = run(model, data)
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    with torch.autocast("cpu", torch.bfloat16):
        output, rounded = run(model, data)
    assert_close(output.loss.float(), expected.loss, rtol=0.05, atol=0)
    assert rounded.keys() == gradients.keys()
    for name, expected_gradient in gradients.items():
        assert rounded[name].isfinite().all()
        # Those of a few parameters are nothing but rounding.
        if name.startswith(("decoders", "classifier")) and expected_gradient.norm() > 1e-3:
            pair = rounded[name].flatten(), expected_gradient.flatten()
            assert torch.cosine_similarity(*pair, dim=0) > 0.9, name


def test_published_sizes():
    """MiT-B2 has 24.2 M parameters, and SegFormer decodes it at 768 channels."""
    with torch.device("meta"):
        model = GammaModel(GammaConfig(backbone="mit_b2"))
    assert sum(p.numel() for p in model.encoder.parameters()) == 24_196_288
    assert model.decoders["ai"].linear_fuse.weight.shape == (768, 3072, 1, 1)
    assert GammaConfig(backbone="mit_b0").decoder_channels == 256
