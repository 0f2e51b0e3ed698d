import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import CheckpointError, load, load_backbone, save
from model.network import GammaModel

OLD_NAMES = (  # Hugging Face before version 5
    (r"^stages\.(\d)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"^stages\.(\d)\.blocks\.", r"encoder.block.\1."),
    (r"^stages\.(\d)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"\.layernorm_before\.", ".layer_norm_1."),
    (r"\.layernorm_after\.", ".layer_norm_2."),
    (r"\.q_proj\.", ".self.query."),
    (r"\.k_proj\.", ".self.key."),
    (r"\.v_proj\.", ".self.value."),
    (r"\.o_proj\.", ".output.dense."),
    (r"\.sequence_reduction\.sequence_reduction\.", ".self.sr."),
    (r"\.sequence_reduction\.layer_norm\.", ".self.layer_norm."),
    (r"\.mlp\.fc([12])\.", r".mlp.dense\1."),
)
ORIGINAL_NAMES = (  # the repository of the paper that introduced MiT
    (r"^stages\.(\d)\.patch_embeddings\.layer_norm\.", r"patch_embed\1.norm."),
    (r"^stages\.(\d)\.patch_embeddings\.", r"patch_embed\1."),
    (r"^stages\.(\d)\.blocks\.", r"block\1."),
    (r"^stages\.(\d)\.layer_norm\.", r"norm\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.q_proj\.", ".attn.q."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attn.sr."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".attn.norm."),
)


def renamed(name, table):
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def as_original(weights):
    result = {}
    for name, tensor in weights.items():
        name = re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) + 1}", name)
        name = renamed(name, ORIGINAL_NAMES)
        if ".k_proj." in name:
            value = weights[
                re.sub(r"^block(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.", name).replace(
                    ".k_proj.", ".v_proj."
                )
            ]
            result[name.replace(".attention.k_proj.", ".attn.kv.")] = torch.cat([tensor, value])
        elif ".v_proj." not in name:
            result[name] = tensor
    return result


@pytest.fixture
def saved(make_model, tmp_path):
    model = make_model().eval()
    save(model, tmp_path)
    return model, tmp_path


def edit_config(directory, **fields):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_weights(directory, change):
    file = directory / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def test_checkpoint_is_a_hugging_face_directory(saved):
    model, directory = saved
    files = {file.name for file in directory.iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md"}
    assert "untrained" in (directory / "README.md").read_text()
    for loaded in (load(directory), load(str(directory)), GammaModel.from_pretrained(directory)):
        assert not loaded.training
        weights = loaded.state_dict()
        assert weights.keys() == model.state_dict().keys()
        assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())


def test_weight_names_are_stable(make_model):
    """A change of this list breaks existing checkpoints."""
    names = make_model(cross_attention="dual").state_dict().keys()
    own = {re.sub(r"\.\d\.", ".N.", n) for n in names if not n.startswith("encoder.")}
    head = {
        "linear_projections.N.weight",
        "linear_projections.N.bias",
        "linear_fuse.weight",
        *(f"batch_norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")),
        "batch_norm.num_batches_tracked",
        "mlp.weight",
        "mlp.bias",
        "mask_classifier.weight",
        "mask_classifier.bias",
    }
    attention = {f"{letter}_proj.weight" for letter in "qkv"}
    assert own == {
        *(f"decoders.{h}.{name}" for h in ("ai", "manipulation") for name in head),
        *(
            f"{direction}_attention.{h}.{name}"
            for direction in ("reverse", "forward")
            for h in ("ai", "manipulation")
            for name in attention
        ),
        *(
            f"{layer}.{name}"
            for layer in ("cls_projection", "classifier")
            for name in ("weight", "bias")
        ),
    }


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"format_version": 2}, "format_version"),
        ({"format_version": None}, "format_version"),
        ({"model_type": "segformer"}, "model_type"),
        ({"backbone": "resnet"}, "backbone"),
        ({"thresholds": {"mask": 7}}, "mask"),
        ({"thresholds": {"colour": 1}}, "colour"),
    ],
)
def test_configs_that_cannot_be_used_are_refused(saved, fields, complaint):
    _, directory = saved
    edit_config(directory, **fields)
    with pytest.raises(CheckpointError, match=rf"config\.json.*{complaint}"):
        load(directory)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w.pop("classifier.weight"), r"missing key classifier\.weight"),
        (lambda w: w.update(extra=torch.ones(1)), "unexpected key extra"),
        (
            lambda w: w.update({"classifier.weight": torch.ones(2, 24)}),
            r"classifier\.weight has shape \(2, 24\), the network needs \(1, 24\)",
        ),
    ],
)
def test_weights_that_do_not_match_are_refused(saved, change, complaint):
    _, directory = saved
    edit_weights(directory, change)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{complaint}"):
        load(directory)


def test_damaged_files_are_refused(saved):
    _, directory = saved
    (directory / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load(directory)


def test_pickles_are_never_read(saved):
    model, directory = saved
    (directory / "model.safetensors").unlink()
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*are not read"):
        load(directory)
    with pytest.raises(CheckpointError, match="pickles are not read"):
        load(directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickles are not read"):
        load_backbone(model, directory / "pytorch_model.bin")


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="neither a directory nor"):
        load("/no/such/place/at/all")


@pytest.mark.parametrize("names", ["new", "prefixed", "old", "original", "gamma"])
def test_backbone_weights_with_all_key_names(make_model, tmp_path, names):
    source = make_model()
    weights = source.encoder.state_dict()
    torch.manual_seed(7)
    weights = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    stored = {
        "new": lambda: dict(weights),
        "prefixed": lambda: {f"segformer.{n}": t for n, t in weights.items()},
        "old": lambda: {f"segformer.{renamed(n, OLD_NAMES)}": t for n, t in weights.items()},
        "original": lambda: as_original(weights),
        "gamma": lambda: source.state_dict() | {f"encoder.{n}": t for n, t in weights.items()},
    }[names]()
    stored |= {"classifier.weight": torch.ones(2), "head.bias": torch.ones(2)}
    save_file({n: t.contiguous() for n, t in stored.items()}, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        model = make_model()
        load_backbone(model, place)
        for name, tensor in model.encoder.state_dict().items():
            assert torch.equal(tensor, weights[name]), name


def test_backbone_weights_of_another_size_are_refused(make_model, tmp_path):
    weights = make_model(backbone="mit_b1").encoder.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: stages\.0.*has shape"):
        load_backbone(make_model(), tmp_path)
