"""A tiny configuration of every algorithm, and what the tests of all of them need. A new algorithm joins by one entry in CONFIGS."""

import copy

import torch
from torch import Tensor, nn

from nenya_nb.core import Clock
from nenya_nb.data.datasets import ImageDataset
from nenya_nb.models import Algorithm, build

SIZE, LENGTH, BATCH = 16, 24, 8  # px, images in the data, and in a batch: three steps in an epoch

RESNET = {
    "type": "ResNet",
    "block": "basic",
    "layers": [1, 1],
    "num_classes": 0,
    "stem_type": "small",
    "stem_width": 8,
    "channels": [8, 16],
    "global_pool": "avg",
}  # → (B, 16)
ARCH = {"embed_dims": 16, "num_layers": 2, "num_heads": 2, "feedforward_channels": 32}
VIT = {"arch": ARCH, "img_size": SIZE, "patch_size": 4}  # 16 patches → (B, 16)


def _mlp(input_dim: int, output_dim: int, **options: bool) -> dict:
    dims = {"input_dim": input_dim, "hidden_dim": 24, "output_dim": output_dim}
    return {"type": "NonLinearNeck", **dims, **options}


CONFIGS: dict[str, dict] = {
    "SimCLR": {"backbone": RESNET, "neck": _mlp(16, 12)},
    "SupCon": {"backbone": RESNET},
    "SupCE": {"backbone": RESNET, "num_classes": 3},
    "MoCo": {
        "backbone": RESNET,
        "neck": {"type": "MoCoV2Neck", "input_dim": 16, "hidden_dim": 24, "output_dim": 12},
        "head": {"type": "ContrastiveHead", "temperature": 0.2},
        "length": 20,  # wraps around in the third step
        "momentum": 0.9,
    },
    "MoCoV3": {
        "backbone": {"type": "MoCoV3ViT", **VIT, "stop_grad_conv1": True},
        "neck": _mlp(16, 12, with_last_bn_affine=False),
        "head": {"type": "MoCoV3Head", "predictor": _mlp(12, 12), "temperature": 0.2},
        "base_momentum": 0.9,
    },
    "DenseCL": {
        "backbone": RESNET,
        "neck": {"type": "DenseCLNeck", "input_dim": 16, "hidden_dim": 24, "output_dim": 12},
        "length": 20,
        "momentum": 0.9,
        "warmup_steps": 1,
    },
    "BYOL": {
        "backbone": RESNET,
        "neck": _mlp(16, 12, with_last_bn=False),
        "head": {"type": "LatentPredictHead", "predictor": _mlp(12, 12, with_last_bn=False)},
        "base_momentum": 0.9,
    },
    "SimSiam": {
        "backbone": RESNET,
        "neck": _mlp(16, 12, num_layers=3, with_last_bn_affine=False),
        "head": {"type": "LatentPredictHead", "predictor": _mlp(12, 12, with_last_bn=False)},
    },
    "BarlowTwins": {
        "backbone": RESNET,
        "neck": _mlp(16, 12, num_layers=3, with_last_bn=False),
        "loss_fn": {"type": "CrossCorrelationLoss", "lambd": 0.02},
    },
    "VICReg": {
        "backbone": RESNET,
        "neck": _mlp(16, 12, num_layers=3, with_last_bn=False),
        "loss_fn": {"type": "VICRegLoss", "nu": 0.5},
    },
    "LeJEPA": {
        "backbone": RESNET,
        "neck": _mlp(16, 12, num_layers=3, with_last_bn=False, with_last_bias=True),
        "loss_fn": {"type": "LeJEPALoss", "regularizer": {"type": "SIGReg", "num_slices": 32}},
        "num_local": 2,
    },
    "SwAV": {
        "backbone": RESNET,
        "neck": {"type": "SwAVNeck", "input_dim": 16, "hidden_dim": 24, "output_dim": 12},
        "head": {"type": "SwAVHead", "input_dim": 12, "num_prototypes": 10},
        "num_local": 2,
        "freeze_steps": 1,
        "length": 16,  # full after the second step
        "queue_epoch": 0,
    },
    "DINO": {
        "backbone": {"type": "VisionTransformer", "img_size": SIZE, "patch_size": 4}
        | {"num_classes": 0, "embed_dim": 16, "depth": 2, "num_heads": 2},
        "neck": {"type": "DinoProjectionHead", "input_dim": 16, "hidden_dim": 24}
        | {"bottleneck_dim": 12, "output_dim": 10, "norm_last_layer": True},
        "loss_fn": {"type": "DINOLoss", "output_dim": 10, "teacher_temperature": 0.07}
        | {"warmup_temperature": 0.04, "warmup_epochs": 2},
        "num_local": 2,
        "base_momentum": 0.9,
    },
    "IBOT": {
        "backbone": {"type": "SimMIMViT", **VIT, "global_pool": "token"},
        "neck": {"type": "DinoProjectionHead", "input_dim": 16, "hidden_dim": 24}
        | {"bottleneck_dim": 12, "output_dim": 10, "norm_last_layer": True},
        "patch_loss_fn": {"type": "IBOTPatchLoss", "output_dim": 10, "teacher_temperature": 0.07}
        | {"warmup_temperature": 0.04, "warmup_epochs": 2},
        "num_local": 2,
        "koleo": 0.1,
        "base_momentum": 0.9,
    },
    "NPID": {
        "backbone": RESNET,
        "neck": {"type": "LinearNeck", "input_dim": 16, "output_dim": 12},
        "length": LENGTH,
        "num_negatives": 10,
        "ensure_negatives": True,
    },
    "DeepCluster": {
        "backbone": {"type": "Sobel", "backbone": RESNET | {"in_channels": 2}},
        "length": LENGTH,
        "num_classes": 4,
        "pca_dims": 8,
    },
    "ODC": {
        "backbone": RESNET,
        "neck": {"type": "ODCNeck", "input_dim": 16, "hidden_dim": 24, "output_dim": 12},
        "memory": {"type": "ODCMemory", "length": LENGTH, "dim": 12}
        | {"num_classes": 4, "min_cluster": 3},
        "interval": 3,
    },
    "MAE": {
        "backbone": {"type": "MAEViT", **VIT},
        "neck": {"type": "MAEPretrainDecoder", "input_dim": 16, "hidden_dim": 16, "depth": 1}
        | {"num_heads": 2, "img_size": SIZE, "patch_size": 4},
    },
    "SimMIM": {"backbone": {"type": "SimMIMViT", **VIT}, "mask_size": 4},
    "CAE": {
        "backbone": {"type": "CAEViT", **VIT},
        "neck": {"type": "CAENeck", "input_dim": 16, "num_classes": 10, "num_heads": 2}
        | {"regressor_depth": 1, "decoder_depth": 1},
        "target_generator": {"type": "PixelClusters", "num_clusters": 10},
        "base_momentum": 0.5,
    },
    "IJEPA": {
        "backbone": {"type": "CAEViT", **VIT},
        "neck": {"type": "IJEPAPredictor", "input_dim": 16, "hidden_dim": 8, "depth": 1}
        | {"num_heads": 2, "img_size": SIZE, "patch_size": 4},
        "num_targets": 2,
        "scale": [0.2, 0.3],  # 2 × 2 of 4 × 4 patches
        "base_momentum": 0.9,
    },
    "RotationPred": {"backbone": RESNET},
    "RelativeLoc": {
        "backbone": RESNET,
        "neck": {"type": "RelativeLocNeck", "input_dim": 16, "output_dim": 24},
    },
}
CONFIGS = {name: {"type": name, **copy.deepcopy(config)} for name, config in CONFIGS.items()}


def build_algorithm(name: str, seed: int = 0) -> Algorithm:
    torch.manual_seed(seed)
    return build(CONFIGS[name])


def tiny_dataset() -> ImageDataset:
    "Random bytes in three classes: nothing to learn, but everything to compute."
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (LENGTH, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(LENGTH) % 3, classes=list("abc"))


def make_loader(algorithm: Algorithm, batch_size: int = BATCH):
    "The loader that `fit` would make: its batches are the algorithm's own recipe."
    wants = dict(recipe=algorithm.views, targets=algorithm.targets)
    return tiny_dataset().loader(batch_size=batch_size, **wants)


def make_batch(algorithm: Algorithm, batch_size: int = BATCH) -> tuple[list[Tensor], Tensor]:
    "Views and targets as the algorithm asks for them; what happens before an epoch has happened."
    loader = make_loader(algorithm, batch_size)
    algorithm.on_epoch_start(loader, Clock(len(loader), 2))
    return next(iter(loader))


def to_dtype(views: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    "Images in another precision; masks stay what they are."
    return [view.to(dtype) if view.is_floating_point() else view for view in views]


def trainable(algorithm: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in algorithm.named_parameters() if p.requires_grad}


def step(
    algorithm: Algorithm, optimizer: torch.optim.Optimizer, batch: tuple, clock: Clock
) -> Tensor:
    "One step as `fit` does it; the loss."
    loss = algorithm(*batch, mode="loss")["loss"]
    loss.backward()
    algorithm.before_step(clock)
    optimizer.step()
    optimizer.zero_grad()
    clock.step += 1
    algorithm.after_step(clock)
    return loss.detach()
