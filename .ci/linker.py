"""Prints the arguments of maturin that link a library for systems older than this one.

zig brings glibc's interfaces of 2.17, of the year 2012. It is installed here; where there is none
for the machine, one line says so, and the library is linked as the compiler does it.
"""

import platform
import subprocess
import sys

# What manylinux2014 knows.
MACHINES = {"aarch64", "armv7l", "i686", "ppc64le", "s390x", "x86_64"}


def has_zig() -> bool:
    """Whether zig could be installed for a machine that can use it."""
    if platform.libc_ver()[0] != "glibc" or platform.machine() not in MACHINES:
        return False
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run([*install, "ziglang>=0.13"], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def main() -> None:
    """Prints the arguments, or nothing and a line on standard error."""
    if has_zig():
        print("--zig --compatibility manylinux2014")
    elif sys.platform == "linux":
        note = "no zig for this machine: the wheel is for systems like this one"
        print(f"lmcore: {note}", file=sys.stderr)


if __name__ == "__main__":
    main()
