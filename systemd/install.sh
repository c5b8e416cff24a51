#!/usr/bin/env bash
# Install lorabridge as a service: the program into /opt/lorabridge, the unit, the account, the directories.
# May be run again at any time: that is the upgrade. Configuration, keys and state that are there stay as they are.
set -euo pipefail

usage() {
  cat <<'TXT'
usage: systemd/install.sh [--root DIR] [--wheels DIR] [--python FILE] [--with EXTRA]

  --root DIR     install into DIR instead of / and leave the running system alone (also: DESTDIR=DIR)
  --wheels DIR   take packages from DIR and from nowhere else, for a gateway without a network;
                 fill DIR on another machine of the same kind and Python:
                   pip wheel . --wheel-dir DIR --constraint constraints.txt   ('.[concentratord]' for --with concentratord)
  --python FILE  the interpreter to use, 3.11 or newer (default: /usr/bin/python3)
  --with EXTRA   install what an optional part needs too: concentratord (it stays over later upgrades)
TXT
}

die() { echo "install: $*" >&2; exit 1; }
say() { echo "install: $*"; }

root=${DESTDIR:-}
wheels=
python=/usr/bin/python3
extra=
while [ $# -gt 0 ]; do
  case $1 in
  --root | --wheels | --python | --with)
    [ $# -ge 2 ] || { usage >&2; exit 2; }
    case $1 in
    --root) root=$2 ;;
    --wheels) wheels=$2 ;;
    --python) python=$2 ;;
    --with) extra=$2 ;;
    esac
    shift 2
    ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
  esac
done
root=${root%/}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=/opt/lorabridge
venv=$root$prefix

check_system() {
  [ -n "$root" ] || [ "$(id -u)" -eq 0 ] ||
    die "needs root: sudo systemd/install.sh (or --root DIR to look at the result without touching the system)"
  [ -z "$extra" ] || [ "$extra" = concentratord ] || die "--with $extra: no such part; there is concentratord"
  [ -z "$wheels" ] || [ -d "$wheels" ] || die "--wheels $wheels: no such directory"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "$python is no Python 3.11 or newer; install one, or name it with --python FILE"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make virtual environments; on Debian: apt install python3-venv"
  if [ -z "$root" ]; then
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
    /home/* | /root/*) die "$python lies in a home directory, which the service cannot see (ProtectHome=yes); use another" ;;
    esac
    [ -d /run/systemd/system ] || die "systemd does not run here; --root DIR installs the files alone"
  fi
}

install_program() {
  local source=(--constraint "$checkout/constraints.txt")
  [ -z "$wheels" ] || source=(--no-index --find-links "$wheels")
  if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making the virtual environment $venv with $("$python" --version)"
    install -d -m 0755 "$root/opt"
    "$python" -m venv --clear "$venv"
  fi
  say "installing the program into $venv"
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location)
  if [ -n "$wheels" ]; then
    "${pip[@]}" "${source[@]}" "lorabridge${extra:+[$extra]}"
    "${pip[@]}" "${source[@]}" --no-deps --force-reinstall lorabridge
  else
    "${pip[@]}" "${source[@]}" "$checkout${extra:+[$extra]}"
    "${pip[@]}" "${source[@]}" --no-deps --force-reinstall "$checkout"
  fi
  # In a tree that will move to /, the scripts have to name the place where they will be.
  if [ -n "$root" ]; then
    { grep -rIlF --null "$venv" "$venv/bin" "$venv/pyvenv.cfg" || true; } | xargs -0 -r sed -i "s|$venv|$prefix|g"
  fi
  install -D -m 0644 -t "$venv/share/doc/lorabridge" "$checkout/README.md" "$checkout/LICENSE"
  install -D -m 0644 -t "$venv/share/doc/lorabridge/examples" "$checkout"/systemd/examples/*.conf
  chmod -R u=rwX,go=rX "$venv"
  install -d -m 0755 "$root/usr/local/bin"
  ln -sfn "$prefix/bin/lorabridge" "$root/usr/local/bin/lorabridge"
}

install_service() {
  install -D -m 0644 "$checkout/systemd/lorabridge.service" "$root/etc/systemd/system/lorabridge.service"
  install -D -m 0644 "$checkout/systemd/sysusers.d.conf" "$root/etc/sysusers.d/lorabridge.conf"
  install -D -m 0644 "$checkout/systemd/tmpfiles.d.conf" "$root/etc/tmpfiles.d/lorabridge.conf"
  if [ -z "$root" ]; then
    systemd-sysusers lorabridge.conf
    systemd-tmpfiles --create lorabridge.conf
    return
  fi
  local kind path mode rest
  while read -r kind path mode rest; do
    if [ "$kind" = d ]; then install -d -m "$mode" "$root$path"; fi
  done <"$checkout/systemd/tmpfiles.d.conf"
}

# The example only where there is no configuration yet: an operator's file is never touched.
install_configuration() {
  local target=$root/etc/lorabridge/lorabridge.toml
  if [ -e "$target" ]; then
    say "keeping $target"
    return
  fi
  (umask 0137 && "$venv/bin/python" -P -m lorabridge.cli.main config example >"$target.new") ||
    { rm -f "$target.new"; die "the example configuration could not be written"; }
  [ -n "$root" ] || chown root:lorabridge "$target.new"
  mv "$target.new" "$target"
  say "wrote the example configuration to $target"
}

start_or_tell() {
  [ -z "$root" ] || { say "installed into $root"; return; }
  systemctl daemon-reload
  systemctl try-restart lorabridge.service
  if systemctl is-active --quiet lorabridge.service; then
    say "done; the running service was restarted"
    return
  fi
  cat <<'TXT'
install: done. Next:
  1. write /etc/lorabridge/lorabridge.toml, put devices into /etc/lorabridge/devices.d/ and the certificates where the
     configuration says (keys and devices: chown lorabridge:lorabridge, chmod 0600)
  2. lorabridge check --config /etc/lorabridge/lorabridge.toml
  3. systemctl enable --now lorabridge
TXT
}

umask 022
check_system
install_program
install_service
install_configuration
start_or_tell
