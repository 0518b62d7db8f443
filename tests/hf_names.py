"""Our transformers' weights under the names of Hugging Face's, for `test_mae` and `test_simmim`."""

import re

_RENAMES = (
    (r"^cls_token|^mask_token|^position_embeddings", r"embeddings.\g<0>"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^norm\.", "layernorm."),
    (r"^decoder_blocks\.", "decoder_layers."),
    (r"^blocks\.", "layers."),
    (r"^layers\.(\d+)\.(blocks|downsample)\.", r"encoder.layers.\1.\2."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.relative_", ".attention.relative_position_bias.relative_"),
)


def hf_names(state, skip=()):
    "A state dict of ours in the names of `transformers` 5; `qkv` is split into three."
    renamed = {}
    for name, value in state.items():
        if name in skip:
            continue
        for pattern, theirs in _RENAMES:
            name = re.sub(pattern, theirs, name)
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attention.{letter}_proj.")] = part
        else:
            renamed[name] = value
    return renamed
