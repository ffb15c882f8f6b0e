"""How products of float32 are computed: as torch was told to."""

import torch


def find_precision(dtype: torch.dtype) -> str:
    """Returns what `tl.dot` calls the precision of torch's products.

    `torch.get_float32_matmul_precision` fails where a program has set it by
    `torch.backends.cuda.matmul.fp32_precision`, which knows both ways and is not in old versions.

    Args:
        dtype: of the factors.
    """
    if dtype != torch.float32:
        return "ieee"
    told = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if told is None:
        told = torch.get_float32_matmul_precision()
    return "ieee" if told in ("none", "ieee", "highest") else "tf32"
