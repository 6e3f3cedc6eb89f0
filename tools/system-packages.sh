#!/bin/sh
# Install what the Python packages cannot bring, through the distribution's package manager, where it is missing.
set -eu
missing=""
command -v iverilog >/dev/null 2>&1 || missing="$missing iverilog"
command -v g++ >/dev/null 2>&1 || missing="$missing g++"
command -v perl >/dev/null 2>&1 || missing="$missing perl"
python="${PYTHON:-python3}"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c "import ensurepip" >/dev/null 2>&1 || missing="$missing python$version-venv"
# the simulators load Python as a library, which a distribution's python3 does not bring with it
"$python" -c 'import ctypes, sysconfig; ctypes.CDLL(sysconfig.get_config_var("INSTSONAME"))' >/dev/null 2>&1 \
  || [ -e "$("$python" -c 'import os, sysconfig as s; print(os.path.join(s.get_config_var("LIBDIR"), s.get_config_var("INSTSONAME")))')" ] \
  || missing="$missing libpython$version"
[ -n "$missing" ] || exit 0
echo "installing$missing" >&2
if ! command -v apt-get >/dev/null 2>&1; then
  echo "please install$missing with this system's package manager, then run make again" >&2
  exit 1
fi
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
$as_root apt-get update -qq >&2
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
