#!/usr/bin/env bash
# Every command through PgBouncer with few servers, several at once, two texts with different answers among them.
#
#   scripts/pooler-check.sh transaction|session SERVER-URL TOLLGATE FOLDER
set -uo pipefail
mode=$1 server=$2 tollgate=$3 work=$4
port=$((6500 + RANDOM % 400))
upstream=${server#*@}
upstream=${upstream%%/*}
database=pooled_$mode
psql -q "$server" -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database" || exit 1
cat >"$work/pgbouncer-$mode.ini" <<INI
[databases]
* = host=${upstream%%:*} port=${upstream##*:} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = $mode
default_pool_size = $([ "$mode" = transaction ] && echo 4 || echo 20)
logfile = $work/pgbouncer-$mode.log
pidfile = $work/pgbouncer-$mode.pid
INI
chmod 644 "$work/pgbouncer-$mode.ini"
chmod 777 "$work"
if [ "$(id -u)" -eq 0 ]; then
    setpriv --reuid=postgres --regid=postgres --init-groups pgbouncer -q -d "$work/pgbouncer-$mode.ini" || exit 1
else
    pgbouncer -q -d "$work/pgbouncer-$mode.ini" || exit 1
fi
trap 'kill "$(cat "$work/pgbouncer-$mode.pid")" 2>/dev/null' EXIT
sleep 1
export DATABASE_URL=postgres://postgres@127.0.0.1:$port/$database
bad=0
expect() {
    local code=$1
    shift
    "$tollgate" "$@" >"$work/out" 2>&1
    local is=$?
    if [ $is -ne "$code" ]; then
        echo "tollgate $*: exit $is, wanted $code"
        head -n 5 "$work/out"
        bad=1
    fi
}
expect 0 seed --track governance --profile bifrost-credentials --virtual-keys 300
expect 0 doctor
expect 0 snapshot -o "$work/before-$mode.json"
# Eight at once: one does the work.
for i in 1 2 3 4 5 6 7 8; do
    "$tollgate" migrate up --adopt --shared-budgets clone --output json >"$work/up-$mode-$i" 2>"$work/up-$mode-$i.err" &
    pids[i]=$!
done
done_by=0
for i in 1 2 3 4 5 6 7 8; do
    wait "${pids[i]}" || { echo "up $i failed"; head -n 3 "$work/up-$mode-$i.err"; bad=1; }
    grep -q '"version":"m20260330_000007' "$work/up-$mode-$i" && grep -q '"applied":\[{' "$work/up-$mode-$i" && done_by=$((done_by + 1))
done
echo "8 x up in $mode mode: $done_by did the work"
[ $done_by -eq 1 ] || bad=1
expect 0 verify --snapshot "$work/before-$mode.json"
expect 0 migrate status --check
expect 0 reconcile all
expect 0 reconcile all --check
# Two texts, two answers, on few servers: the first key's budgets and the second's, forty times each, six at a time.
keys=($(psql -At "$server" -c '\c '"$database" -c "SELECT virtual_key_id FROM governance_budgets WHERE virtual_key_id IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT 2" | grep -v '^You'))
for key in "${keys[@]}"; do
    "$tollgate" --output json budget list --virtual-key "$key" --provider openai | sed 's/"duration_ms":[0-9]*//' >"$work/right-$key"
done
"$tollgate" --output json migrate status | sed 's/"duration_ms":[0-9]*//' >"$work/right-status"
[ ${#keys[@]} -eq 2 ] || { echo "no two keys to ask for"; bad=1; }
wrong=0
ask() {
    for _ in $(seq 1 20); do
        "$tollgate" --output json "$@" 2>/dev/null | sed 's/"duration_ms":[0-9]*//' | cmp -s - "$right" || echo wrong >>"$work/wrong-$mode"
    done
}
: >"$work/wrong-$mode"
for round in 1 2; do
    for key in "${keys[@]}"; do
        right=$work/right-$key ask budget list --virtual-key "$key" --provider openai &
    done
    right=$work/right-status ask migrate status &
    wait
done
wrong=$(wc -l <"$work/wrong-$mode")
echo "120 answers of three texts in $mode mode: $wrong wrong"
[ "$wrong" -eq 0 ] || bad=1
expect 0 migrate down --to governance_baseline --allow-data-loss
exit $bad
