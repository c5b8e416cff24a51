#!/usr/bin/env bash
# Remove the service and the program. Configuration, keys, counters and undelivered records stay, unless --purge.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: systemd/uninstall.sh [--root DIR] [--purge]

  --root DIR  remove from DIR instead of / (also: DESTDIR=DIR)
  --purge     remove the configuration, the keys and the state too. The frame counters go with it: devices that
              are not given new keys could then be imitated with frames recorded before. Credentials that drop-ins
              load from elsewhere, such as /etc/credstore, stay.
TXT
}

root=${DESTDIR:-}
purge=no
while [ $# -gt 0 ]; do
  case $1 in
  --root)
    [ $# -ge 2 ] || { usage >&2; exit 2; }
    root=$2
    shift 2
    ;;
  --purge) purge=yes; shift ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
  esac
done
root=${root%/}

if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
  echo "uninstall: needs root: sudo systemd/uninstall.sh" >&2
  exit 1
fi
if [ -z "$root" ] && [ -d /run/systemd/system ] && [ -e /etc/systemd/system/lorabridge.service ]; then
  systemctl disable --now --quiet lorabridge.service
fi

rm -f "$root/etc/systemd/system/lorabridge.service" "$root/usr/local/bin/lorabridge"
rm -f "$root/etc/sysusers.d/lorabridge.conf" "$root/etc/tmpfiles.d/lorabridge.conf"
rm -rf "$root/opt/lorabridge"
if [ "$purge" = yes ]; then
  rm -rf "$root/etc/lorabridge" "$root/var/lib/lorabridge" "$root/etc/systemd/system/lorabridge.service.d"
  if [ -z "$root" ] && id lorabridge >/dev/null 2>&1; then userdel lorabridge; fi
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

for kept in /etc/lorabridge /var/lib/lorabridge /etc/systemd/system/lorabridge.service.d; do
  if [ -e "$root$kept" ]; then echo "uninstall: kept $root$kept"; fi
done
echo "uninstall: done"
