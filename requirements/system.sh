#!/usr/bin/env bash
# Installs the programs of system.txt with apt, those that are missing; starts none of their services.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
while read -r package; do
  state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done < system.txt
if [ ${#missing[@]} -eq 0 ]; then
  echo "all are installed: $(paste --serial --delimiters ' ' system.txt)"
  exit
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo)
fi

# While this file says 101 to everybody who asks, packages do not start what they install.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
