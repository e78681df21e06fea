"""Initial weights for training from scratch."""

from __future__ import annotations

from torch import nn

STD = 0.02
LAST_STD = 0.002
"""Of layers whose output is the answer itself: a start near the prior."""


def initialise(network: nn.Module) -> None:
    """Truncated normals, as vision transformers like them; convolutions of the decoders keep PyTorch's own."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if name.endswith(("cls_token", "pos_embed", "register_tokens", "camera_token", "register_token", ".first")):
            nn.init.trunc_normal_(parameter, std=STD)
    nn.init.trunc_normal_(network.camera_head.pose_branch.fc2.weight, std=LAST_STD)
    nn.init.trunc_normal_(network.depth_head.scratch.output_conv2[-1].weight, std=STD)
    nn.init.zeros_(network.depth_head.scratch.output_conv2[-1].bias)
    # Columns of about unit length: a unit feature decodes to a unit vector of the text's space.
    nn.init.orthogonal_(network.feature_decoder.weight)
    if hasattr(network, "gaussian_head"):
        network.gaussian_head.start_plain()
