# shellcheck shell=sh
# identity DATABASE: prints which database this path names, as `MACHINE:DEVICE:INODE`; nothing where there is none.
# probe.sh has it in front of itself: it is run only when it is given one value and no more.

# The machine and its boot: clones of one image share the first, and often the inode too.
machine_id() {
  {
    cat /etc/machine-id || ioreg -rd1 -c IOPlatformExpertDevice | sed -n 's/.*"IOPlatformUUID" = "\(.*\)".*/\1/p'
    cat /proc/sys/kernel/random/boot_id || sysctl -n kern.bootsessionuuid || sysctl -n kern.uuid
  } 2>/dev/null | tr -cd '0-9A-Za-z-'
}

database_identity() {
  place=$(stat -L -c %d:%i "$1" 2>/dev/null || stat -L -f %d:%i "$1" 2>/dev/null) || return 0
  printf '%s:%s\n' "$(machine_id)" "$place"
}

[ "$#" -ne 1 ] || database_identity "$1"
