"""Whether kernels run in Triton's interpreter, which a process decides before it imports one."""

import os

# Its arithmetic in bfloat16 is wrong: there kernels go on in float32 from the load on.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
