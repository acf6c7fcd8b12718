#!/usr/bin/env bash
# Brings what tests/examples/test_cpp.py needs, as root on Debian: a compiler, three libraries, and ONNX
# Runtime's C++ header, which Debian has from release 13 on; a header fits any machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages=(cmake g++ nlohmann-json3-dev libturbojpeg0-dev libpng-dev)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    apt-get update -q >/dev/null
    apt-get install -y -q "${packages[@]}" >/dev/null
fi
[ -f /usr/include/onnxruntime/onnxruntime_cxx_api.h ] && exit
[ -f build/onnxruntime-headers/onnxruntime_cxx_api.h ] && exit

# from the mirror that the system uses; with lists of its own, so that the system stays on its release
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '!/security/ { print; exit }')
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb $mirror trixie main" >"$work/sources.list"
touch "$work/status"
own=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/nonexistent
     -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
     -o APT::Sandbox::User=root)
apt-get "${own[@]}" update -q >/dev/null
(cd "$work" && apt-get "${own[@]}" download -q libonnxruntime-dev >/dev/null)
dpkg-deb --extract "$work"/libonnxruntime-dev_*.deb "$work/package"
mkdir -p build
rm -rf build/onnxruntime-headers
mv "$work/package/usr/include/onnxruntime" build/onnxruntime-headers
