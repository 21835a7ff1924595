#!/bin/sh
# Install the Debian packages that cross-compiling and emulating need, or say in one line which are missing.
set -eu

# What has to be there (a command, or a file), and the package that brings it.
needed="
gcc gcc
/usr/include/stdio.h libc6-dev
g++ g++
arm-none-eabi-gcc gcc-arm-none-eabi
/usr/lib/arm-none-eabi/include/string.h libnewlib-arm-none-eabi
qemu-system-arm qemu-system-arm
qemu-aarch64 qemu-user
aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf
aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
llvm-mca-19 llvm-19
gdb-multiarch gdb-multiarch
"
missing=$(echo "$needed" | while read -r what package; do
    case "$what" in
    "") ;;
    /*) [ -e "$what" ] || echo "$package" ;;
    *) command -v "$what" >/dev/null 2>&1 || echo "$package" ;;
    esac
done)
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
missing=$(echo $missing)
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
    sudo -n true 2>/dev/null || as_root="none"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ "$as_root" != none ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Debian packages (once): $missing"
    if $as_root apt-get update >"$log" 2>&1 &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >>"$log" 2>&1; then
        exit 0
    fi
    echo "thumbnet: error: apt-get failed: $(grep -E '^E:' "$log" | head -n 1); install by hand: $missing" >&2
    exit 1
fi
echo "thumbnet: error: Debian packages are missing; run: sudo apt-get install $missing" >&2
exit 1
