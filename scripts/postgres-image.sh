#!/usr/bin/env bash
# Builds a PostgreSQL image from Debian's packages, for machines that reach no registry of images.
#
#   scripts/postgres-image.sh [NAME]        default name: tollgate-postgres:local
#
# The image behaves like the official one as far as tests need it: POSTGRES_PASSWORD, port 5432, superuser postgres.
# Takes about a minute; does nothing when the image exists (remove it with `docker rmi NAME` to build it anew).
set -euo pipefail

name=${1:-tollgate-postgres:local}
if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name exists"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "building a root file system needs root; run it with sudo" >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >/dev/null
fi

# The release and the mirror that this machine's own package manager uses.
. /etc/os-release
mirror=$(sed -nE 's/^deb +(\[[^]]*\] +)?(https?:[^ ]+) +[^ ]+ +main.*/\2/p; s/^URIs: *(https?:[^ ]+).*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v -i security | head -n 1 || true)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include=postgresql "${VERSION_CODENAME:-bookworm}" "$root" ${mirror:+"$mirror"} \
    >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/var/lib/postgresql/*/main

cat >"$root/entrypoint" <<'ENTRYPOINT'
#!/bin/bash
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
data=/var/lib/postgresql/data
# Debian's packages create the socket directory at boot, and nothing boots here.
mkdir -p /run/postgresql "$data"
chown postgres:postgres /run/postgresql "$data"
as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
if [ ! -s "$data/PG_VERSION" ]; then
    printf '%s' "${POSTGRES_PASSWORD:-postgres}" >/tmp/password
    chown postgres /tmp/password
    "${as_postgres[@]}" "$bin/initdb" -D "$data" -U postgres -E UTF8 --locale=C.UTF-8 --no-sync \
        --auth-host=scram-sha-256 --auth-local=trust --pwfile=/tmp/password >/dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
fi
exec "${as_postgres[@]}" "$bin/postgres" -D "$data" -c listen_addresses='*' "$@"
ENTRYPOINT
chmod +x "$root/entrypoint"
tar -C "$root" -c . | docker import --change 'ENTRYPOINT ["/entrypoint"]' --change 'EXPOSE 5432' - "$name" >/dev/null
echo "built $name"
