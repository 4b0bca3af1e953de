#!/bin/sh
# Installs a .deb in a Debian root that holds nothing else (debootstrap --variant=minbase), starts it by the desktop entry's
# command under Xvfb, asks a model, removes it, and sees that only the person's data is left. Needs root.
#   check_deb.sh ROOT PACKAGE.deb MODEL.gguf [PICTURE.png]
set -eu

root=$1 package=$2 model=$3 picture=${4:-}
inside() { chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"
trap 'umount -l "$root/proc" "$root/dev"' EXIT

cp "$package" "$root/tmp/kvdesk.deb"
cp "$model" "$root/root/model.gguf"
inside apt-get -qq purge -y kvdesk >/dev/null 2>&1 || true
inside apt-get -qq update
inside apt-get -qq install -y --no-install-recommends xvfb xauth shared-mime-info desktop-file-utils fonts-dejavu-core >/dev/null
inside sh -c 'find / -xdev -name "*kvdesk*" ! -path "/proc/*" ! -path "/tmp/*" ! -path "/root/*" | sort' > "$root/tmp/before"
inside apt-get -qq install -y --no-install-recommends /tmp/kvdesk.deb >/dev/null
inside sh -c '! command -v python3' || echo "note: this root has a Python"

type=$(inside sh -c '. /dev/null; grep -l GGUF /usr/share/mime/packages/kvdesk.xml >/dev/null && grep -m1 "gguf" /usr/share/mime/globs2')
echo "file type: $type"
inside desktop-file-validate /usr/share/applications/kvdesk.desktop
program=$(sed -n 's/^Exec=\([^ ]*\).*/\1/p' "$root/usr/share/applications/kvdesk.desktop")
inside kvdesk doctor --json | head -c 300
inside xvfb-run -a "$program" /root/model.gguf --demo "What is the capital of France?" --screenshot /root/window.png
[ -z "$picture" ] || cp "$root/root/window.png" "$picture"

inside apt-get -qq purge -y kvdesk >/dev/null
inside sh -c 'find / -xdev -name "*kvdesk*" ! -path "/proc/*" ! -path "/tmp/*" ! -path "/root/*" | sort' > "$root/tmp/after"
diff "$root/tmp/before" "$root/tmp/after" && echo "removed without a trace, but for the person's data"
