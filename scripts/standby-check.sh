#!/usr/bin/env bash
# `migrate up --max-lag` beside a real standby: it holds while the standby replays nothing, and goes on when it has caught up.
#
#   scripts/standby-check.sh BIN TOLLGATE FOLDER        BIN holds PostgreSQL's programs
set -uo pipefail
bin=$1 tollgate=$2 work=$3
port=$((6900 + RANDOM % 90))
primary=postgres://postgres@127.0.0.1:$port/postgres
standby=postgres://postgres@127.0.0.1:$((port + 1))/postgres
as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then setpriv --reuid=postgres --regid=postgres --init-groups "$@"; else "$@"; fi
}
mkdir -p "$work/standby" && { [ "$(id -u)" -ne 0 ] || chown postgres "$work/standby"; }
cd "$work/standby" || exit 1
start() { as_postgres "$bin/pg_ctl" -D "$1" -l "$1.log" -w start -o "-p $2 -k $work/standby -c listen_addresses=127.0.0.1 -c fsync=off" >/dev/null; }
stop() { for data in standby primary; do as_postgres "$bin/pg_ctl" -D "$work/standby/$data" -m immediate stop; done >/dev/null 2>&1; }
trap stop EXIT
as_postgres "$bin/initdb" -D primary -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync >/dev/null || exit 1
start primary "$port" || exit 1
as_postgres "$bin/pg_basebackup" -h 127.0.0.1 -p "$port" -U postgres -D standby -R -X stream -c fast || exit 1
start standby $((port + 1)) || exit 1
"$tollgate" seed --profile bifrost-legacy --virtual-keys 20000 --database-url "$primary" -q || exit 1
psql -qAt "$standby" -c "SELECT pg_wal_replay_pause()" >/dev/null || exit 1
"$tollgate" migrate up --adopt --max-lag 1s --batch-ms 5 --batch-delay 50ms --database-url "$primary" >up.out 2>up.err &
up=$!
for _ in $(seq 100); do
    grep -q "behind, more than --max-lag" up.err && break
    kill -0 $up 2>/dev/null || break
    sleep 0.2
done
grep -q "behind, more than --max-lag" up.err || { echo "it never held"; cat up.err; exit 1; }
far() { psql -qAt "$primary" -c "SELECT COALESCE(sum(position), 0) FROM tollgate_backfills" 2>/dev/null; }
first=$(far)
sleep 3
second=$(far)
[ "$first" = "$second" ] || { echo "it worked on while the standby stood still: $first, then $second"; exit 1; }
psql -qAt "$standby" -c "SELECT pg_wal_replay_resume()" >/dev/null
wait $up || { echo "up failed"; cat up.err; exit 1; }
"$tollgate" verify --database-url "$primary" >/dev/null || { echo "verify failed"; exit 1; }
echo "held at $(grep -o 'standby [^;]*behind' up.err | head -n 1), went on when it had caught up"
