#!/bin/sh
# Lays out what the Vulkan backend is compiled with from Debian 13's packages, for a build on Debian 12 (docs/RELEASE.md).
#   vulkan_sdk.sh FOLDER libvulkan-dev_*.deb glslc_*.deb libshaderc1_*.deb libc6_*.deb libstdc++6_*.deb libgcc-s1_*.deb
set -eu

mkdir -p "$1/root" "$1/bin" "$1/include"
sdk=$(cd "$1" && pwd)
shift
for package; do dpkg-deb -x "$package" "$sdk/root"; done
cp -r "$sdk/root/usr/include/vulkan" "$sdk/root/usr/include/vk_video" "$sdk/include/"
libraries="$sdk/root/usr/lib/$(uname -m)-linux-gnu"
# its glibc is newer than this system's: it brings its own loader
cat > "$sdk/bin/glslc" <<END
#!/bin/sh
exec "$(find "$libraries" -name 'ld-linux-*.so.*' | head -n 1)" --library-path "$libraries" "$sdk/root/usr/bin/glslc" "\$@"
END
chmod +x "$sdk/bin/glslc"
"$sdk/bin/glslc" --version | head -n 1
