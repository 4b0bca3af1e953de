#!/bin/sh
# kvdesk @VERSION@: installs itself for you alone, without root. The program is packed behind this script.
#   sh kvdesk-*.run                    into ~/.local (or --prefix FOLDER)
#   sh kvdesk-*.run --uninstall        removes it; your conversations and settings stay
set -eu

prefix="${HOME}/.local"
action=install
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) prefix="${2:?--prefix needs a folder}"; shift ;;
        --uninstall) action=uninstall ;;
        *) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
case "$prefix" in /*) ;; *) prefix="$(pwd)/$prefix" ;; esac

remove() {
    rm -rf "$prefix/lib/kvdesk" "$prefix/share/doc/kvdesk"
    rm -f "$prefix/bin/kvdesk" "$prefix/bin/kvdesk-window" "$prefix/share/applications/kvdesk.desktop" \
        "$prefix/share/icons/hicolor/scalable/apps/kvdesk.svg" "$prefix/share/mime/packages/kvdesk.xml" \
        "$prefix/share/metainfo/kvdesk.metainfo.xml"
}

# What the desktop keeps of icons, types and programs; each tool may be missing, then it is made at the next login.
refresh() {
    update-mime-database "$prefix/share/mime" 2>/dev/null || true
    update-desktop-database "$prefix/share/applications" 2>/dev/null || true
    gtk-update-icon-cache -q -t "$prefix/share/icons/hicolor" 2>/dev/null || true
}

if [ "$action" = uninstall ]; then
    remove
    refresh
    echo "kvdesk is removed from $prefix. Your conversations and settings stay."
    exit 0
fi

command -v xz >/dev/null || { echo "kvdesk: the tool xz is missing; install the package xz-utils." >&2; exit 1; }
payload=$(awk '/^__PAYLOAD__$/ { print NR + 1; exit }' "$0")
mkdir -p "$prefix"
remove
if ! tail -n +"$payload" "$0" | xz -dc | tar -C "$prefix" -xf - ; then
    remove
    echo "kvdesk: it could not be unpacked into $prefix (is the disk full, or the download cut short?)." >&2
    exit 1
fi
sed -i "s|^Exec=kvdesk-window|Exec=\"$prefix/bin/kvdesk-window\"|" "$prefix/share/applications/kvdesk.desktop"
refresh
echo "kvdesk @VERSION@ is installed in $prefix. Start it from your programs, or with $prefix/bin/kvdesk"
exit 0
__PAYLOAD__
