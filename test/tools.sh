#!/usr/bin/env bash
# Installs what the tests judge with: QEMU and its firmware, and the foreign
# implementations of every format that kscratch writes. Debian; needs root only
# if something is missing.
set -euo pipefail

packages=(
  qemu-system-x86 qemu-utils ovmf           # boots
  erofs-utils cryptsetup-bin gdisk dosfstools mtools binutils sbsigntool cpio zstd xorriso genisoimage # disk, boot files
  ignition udev kmod openssl systemd docker-registry fdisk # what derive, pki and images are compared with
  iproute2 util-linux                         # routes in network namespaces
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then sudo=(sudo); fi
echo "installing: ${missing[*]}" >&2
"${sudo[@]}" apt-get update -q
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
