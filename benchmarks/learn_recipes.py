"""How each method is trained in `learn.py`: its parts, and the arguments of `fit`. Budgets are one to five minutes of one core.

The encoder is `resnet_tiny` (0.3 million parameters) or, for masked images, a small ViT; heads are 128 to 64 numbers wide. With so few
steps the optimizer matters more than the method: most learn with AdamW and a high rate, NPID and the pretext tasks with SGD."""

from collections.abc import Callable
from dataclasses import dataclass

import nenya_nb.models as nb
from nenya_nb.data import ImageDataset


@dataclass
class Recipe:
    build: Callable[[ImageDataset], nb.Algorithm]  # from the training images
    fit: dict  # arguments


def adamw(epochs: int, lr: float = 2e-3, **more) -> dict:
    return dict(epochs=epochs, optimizer="adamw", lr=lr, weight_decay=1e-4) | more


def sgd(epochs: int, lr: float = 6e-2, **more) -> dict:
    return dict(epochs=epochs, optimizer="sgd", lr=lr, weight_decay=1e-4) | more


def projection(**more) -> nb.NonLinearNeck:
    return nb.NonLinearNeck(128, 128, 64, **more)


def simclr(train):
    return nb.SimCLR(nb.resnet_tiny(), projection(), nb.ContrastiveHead(0.2))


def supcon(train):
    return nb.SupCon(nb.resnet_tiny(), projection(), nb.SupConLoss(0.2))


def supce(train):
    return nb.SupCE(nb.resnet_tiny())


def swav(train):
    neck, head, loss = nb.SwAVNeck(128, 128, 64), nb.SwAVHead(64, 50), nb.SwAVLoss(epsilon=0.03)
    return nb.SwAV(nb.resnet_tiny(), neck, head, loss, num_local=0, freeze_steps=100)


def dino(train):
    head = nb.DinoProjectionHead(128, 128, 64, 64, norm_last_layer=True)
    loss = nb.DINOLoss(64, teacher_temperature=0.03)
    more = dict(num_local=0, base_momentum=0.98, freeze_last_layer=0)
    return nb.DINO(nb.resnet_tiny(), head, loss, **more)


def moco(train):
    neck = nb.MoCoV2Neck(128, 128, 64)
    return nb.MoCo(nb.resnet_tiny(), neck, length=2048, momentum=0.99)


def mocov3(train):
    predictor = nb.NonLinearNeck(64, 128, 64, with_last_bn=False)
    neck, head = projection(with_last_bn_affine=False), nb.MoCoV3Head(predictor, 0.2)
    return nb.MoCoV3(nb.resnet_tiny(), neck, head, base_momentum=0.95)


def densecl(train):
    more = dict(length=2048, momentum=0.99, warmup_steps=50)
    return nb.DenseCL(nb.resnet_tiny(), nb.DenseCLNeck(128, 128, 64), **more)


def npid(train):
    neck, head = nb.LinearNeck(128, 64), nb.ContrastiveHead(0.2)
    more = dict(length=len(train), num_negatives=512)
    return nb.NPID(nb.resnet_tiny(), neck, head, **more)


def edges() -> nb.Sobel:
    return nb.Sobel(nb.resnet_tiny(in_channels=2))


def deepcluster(train):
    more = dict(length=len(train), num_classes=30, pca_dims=32, every=2)
    return nb.DeepCluster(edges(), **more)


def odc(train):
    memory = nb.ODCMemory(len(train), 64, 30, min_cluster=10)
    return nb.ODC(edges(), nb.ODCNeck(128, 128, 64), memory=memory)


def rotation(train):
    return nb.RotationPred(nb.resnet_tiny())


def relative_loc(train):
    return nb.RelativeLoc(nb.resnet_tiny(stem_stride=1), nb.RelativeLocNeck(128, 512))


def predictor() -> nb.LatentPredictHead:
    return nb.LatentPredictHead(
        nb.NonLinearNeck(512, 128, 512, with_last_bn=False, with_last_bias=True)
    )


def wide_projection() -> nb.NonLinearNeck:
    return nb.NonLinearNeck(128, 512, 512, 3, with_last_bn_affine=False)


def simsiam(train):
    return nb.SimSiam(nb.resnet_tiny(), wide_projection(), predictor())


def byol(train):
    return nb.BYOL(nb.resnet_tiny(), wide_projection(), predictor(), base_momentum=0.95)


def barlow_twins(train):
    neck = nb.NonLinearNeck(128, 256, 256, 3, with_last_bn=False)
    return nb.BarlowTwins(nb.resnet_tiny(), neck)


def vicreg(train):
    return nb.VICReg(nb.resnet_tiny(), nb.NonLinearNeck(128, 256, 256, 3, with_last_bn=False))


def lejepa(train):
    neck = nb.NonLinearNeck(128, 256, 64, 3, with_last_bn=False, with_last_bias=True)
    loss = nb.LeJEPALoss(0.05, nb.SIGReg(256))
    return nb.LeJEPA(nb.resnet_tiny(), neck, loss, num_local=0)


VIT = dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)


def mae(train):
    decoder = nb.MAEPretrainDecoder(96, 64, 2, 4, img_size=32, patch_size=4)
    return nb.MAE(nb.MAEViT(VIT, 32, 4, 0.75), decoder, nb.MAEPretrainHead(4))


def simmim(train):
    swin = dict(embed_dims=48, depths=(2, 2), num_heads=(3, 6))
    more = dict(window_size=4, drop_path_rate=0.0, out_indices=(1,))
    return nb.SimMIM(nb.SimMIMSwinTransformer(swin, 32, **more), mask_size=8)


def cae(train):
    backbone = nb.CAEViT(VIT, 32, 4, init_values=0.1, qkv_bias=False)
    words = nb.PixelClusters(64, 4)
    return nb.CAE(backbone, nb.CAENeck(96, 64, 2, 1, 3), target_generator=words)


def ijepa(train):
    neck = nb.IJEPAPredictor(96, 48, 2, 3, img_size=32, patch_size=4)
    algorithm = nb.IJEPA(nb.CAEViT(VIT, 32, 4), neck)
    algorithm.views |= {"strength": None}  # colours change: they say nothing about the class
    return algorithm


def ibot(train):
    arch = dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=128)
    backbone = nb.SimMIMViT(arch, 32, 4, global_pool="token", positions="mocov3")
    head = nb.DinoProjectionHead(64, 128, 64, 64, norm_last_layer=True)
    losses = nb.DINOLoss(64, teacher_temperature=0.03), nb.IBOTPatchLoss(64)
    more = dict(num_local=0, koleo=0.1, base_momentum=0.99, freeze_last_layer=0)
    algorithm = nb.IBOT(backbone, head, *losses, **more)
    algorithm.views |= {"global_scale": (0.6, 1.0), "asymmetric": False}
    return algorithm


RECIPES = {
    "SupCE": Recipe(supce, sgd(6)),
    "SupCon": Recipe(supcon, adamw(8)),
    "SimCLR": Recipe(simclr, adamw(16)),
    "MoCo": Recipe(moco, adamw(24, weight_decay=1e-2)),
    "MoCoV3": Recipe(mocov3, adamw(14, weight_decay=1e-2)),
    "DenseCL": Recipe(densecl, adamw(18, weight_decay=1e-2)),
    "SimSiam": Recipe(simsiam, adamw(16, 1e-3)),
    "BYOL": Recipe(byol, adamw(16, 1e-3)),
    "BarlowTwins": Recipe(barlow_twins, adamw(16)),
    "VICReg": Recipe(vicreg, adamw(16)),
    "LeJEPA": Recipe(lejepa, adamw(16)),
    "NPID": Recipe(npid, sgd(30, 0.12, warmup_epochs=0.5)),
    "DeepCluster": Recipe(deepcluster, sgd(12, 0.05, batch_size=64, warmup_epochs=0.5)),
    "ODC": Recipe(odc, adamw(24, warmup_epochs=0.5)),
    "SwAV": Recipe(swav, adamw(16)),
    "DINO": Recipe(dino, adamw(20)),
    "MAE": Recipe(mae, adamw(12, batch_size=64, weight_decay=0.05)),
    "SimMIM": Recipe(simmim, adamw(8, 1e-3, batch_size=64, weight_decay=0.05)),
    "IBOT": Recipe(ibot, adamw(7, 1e-3, batch_size=64, weight_decay=0.04)),
    "CAE": Recipe(cae, adamw(8, batch_size=64, weight_decay=0.05, warmup_epochs=0.5)),
    "IJEPA": Recipe(ijepa, adamw(6, 1e-3, batch_size=64, weight_decay=0.05)),
    "RotationPred": Recipe(rotation, adamw(10, batch_size=64, weight_decay=0.05)),
    "RelativeLoc": Recipe(relative_loc, sgd(8, batch_size=32, weight_decay=5e-4)),
}
