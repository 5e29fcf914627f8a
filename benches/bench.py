#!/usr/bin/env python3
"""What Tollgate takes, beside the same by hand and beside what one would use instead.

    benches/bench.py [--sizes 10000,100000] [--rounds 3] [--only up,resets] [--binary target/release/tollgate] [--out DIR]

Starts a PostgreSQL of its own from Debian's programs (as the user postgres where it is root), in memory where there is room. Each
measurement begins with a fresh copy of one seeded database, warm and behind a checkpoint, the sides in turns; the middle of the rounds
counts. What the limit's SQL leaves is compared with what Tollgate leaves, row for row, but for times. Prints a table in Markdown and
writes it, with a JSON of every figure, to DIR.
"""

import argparse
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Columns that say when, which no two runs share, and what only one side keeps.
TIMES = {"created_at", "updated_at", "last_reset", "token_last_reset", "request_last_reset"}


def program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else name


class Server:
    def __init__(self, port=5977):
        room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
        self.home = tempfile.mkdtemp(prefix="tollgate-bench-", dir="/dev/shm" if room > 12 << 30 else None)
        self.port = port
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres")
        self.data = f"{self.home}/data"
        self.run("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
        options = (
            f"-p {port} -k {self.home} -c listen_addresses=127.0.0.1 -c shared_buffers=1GB -c max_wal_size=8GB "
            "-c checkpoint_timeout=1h -c autovacuum=off"
        )
        self.run("pg_ctl", "-D", self.data, "-l", f"{self.home}/log", "-w", "start", "-o", options)

    def run(self, name, *arguments):
        command = [program(name), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def stop(self):
        try:
            self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        finally:
            shutil.rmtree(self.home, ignore_errors=True)

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, database, text):
        answer = subprocess.run(
            [program("psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database), "-c", text],
            check=True, capture_output=True, text=True,
        )
        return answer.stdout.strip()

    def copy(self, source, target):
        """A warm copy, behind a checkpoint: every side pays for the same first writes of pages."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {target}")
        self.sql("postgres", f"CREATE DATABASE {target} TEMPLATE {source}")
        self.sql(target, "CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        self.sql(target, "SELECT sum(pg_prewarm(c.oid::regclass)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                         "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i')")
        self.sql(target, "DROP EXTENSION pg_prewarm")
        self.sql("postgres", "CHECKPOINT")


def timed(command, expected=(0,)):
    """Seconds, and the most memory in MiB."""
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in expected:
            out.seek(0)
            sys.exit(f"{' '.join(command)}: exit {child.returncode}\n{out.read().decode(errors='replace')[-2000:]}")
    return took, usage.ru_maxrss / 1024


class Bench:
    def __init__(self, server, binary, rounds):
        self.server, self.binary, self.rounds, self.figures = server, binary, rounds, []

    def tollgate(self, database, *arguments):
        return [self.binary, *arguments, "--database-url", self.server.url(database), "-q"]

    def psql(self, database, script):
        return [program("psql"), "-qX", "-v", "ON_ERROR_STOP=1", self.server.url(database), "-f", str(script)]

    def contents(self, database, tables):
        found = {}
        for table in tables:
            columns = self.server.sql(
                database,
                "SELECT string_agg(quote_ident(attname), ',' ORDER BY attname) FROM pg_attribute "
                f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped "
                f"AND attname NOT IN ({','.join(repr(name) for name in sorted(TIMES))})",
            )
            found[table] = self.server.sql(
                database, f"SELECT md5(string_agg(r, chr(10) ORDER BY r)) FROM (SELECT ({columns})::text AS r FROM {table}) t"
            )
        return found

    def compare(self, work, size, source, ours, limit, tables=(), expected=(0,), rounds=None):
        """`ours` and `limit` make a command for a database."""
        taken = {"tollgate": [], "limit": []}
        memory = 0
        left = {}
        for _ in range(rounds or self.rounds):
            for side, command in (("tollgate", ours), ("limit", limit)):
                if command is None:
                    continue
                self.server.copy(source, "bench")
                seconds, peak = timed(command("bench"), expected)
                taken[side].append(seconds)
                if side == "tollgate":
                    memory = max(memory, peak)
                if side not in left and tables:
                    left[side] = self.contents("bench", tables)
        if len(left) == 2 and left["tollgate"] != left["limit"]:
            different = [table for table in tables if left["tollgate"][table] != left["limit"][table]]
            sys.exit(f"{work} at {size}: the rows differ in {', '.join(different)}")
        middle = {side: statistics.median(all_) if all_ else None for side, all_ in taken.items()}
        self.figures.append({
            "work": work, "size": size, "tollgate_s": middle["tollgate"], "limit_s": middle["limit"], "memory_mib": memory,
            "rows_compared": len(left) == 2, "rounds": taken,
        })
        ratio = f"{middle['tollgate'] / middle['limit']:.2f}x" if middle["limit"] else ""
        print(f"{work:<34} {size:>9}  {middle['tollgate']:8.2f} s  {middle['limit'] or 0:8.2f} s  {ratio:>7}  {memory:5.0f} MiB", flush=True)

    def writers(self, size, source):
        """What writers wait while each phase works."""
        self.server.copy(source, "bench")
        for phase in ("expand", "backfill", "contract"):
            folder = tempfile.mkdtemp(prefix="writers-", dir=self.server.home)
            writers = subprocess.Popen(
                [program("pgbench"), "-n", "-c", "4", "-j", "2", "-T", "3600", "-D", f"keys={size}", "-f", str(HERE / "writers/usage.sql"),
                 "--log", "--log-prefix", f"{folder}/w", "--max-tries", "1", self.server.url("bench")],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            time.sleep(2)
            adopt = ["--adopt"] if phase == "expand" else []
            began = time.time()
            seconds, _ = timed(self.tollgate("bench", "migrate", "up", "--phase", phase, *adopt))
            ended = time.time()
            time.sleep(0.5)
            writers.terminate()
            said = writers.stderr.read()
            waits = []
            for log in Path(folder).iterdir():
                for line in log.read_text().splitlines():
                    fields = line.split()
                    if len(fields) < 6:
                        # It was stopped in the middle of a line.
                        continue
                    at = int(fields[4]) + int(fields[5]) / 1e6
                    if began <= at <= ended + 0.2:
                        waits.append(int(fields[2]) / 1000)
            waits.sort()
            pick = lambda share: waits[min(len(waits) - 1, int(len(waits) * share))] if waits else math.nan
            figures = {"work": f"writers during {phase}", "size": size, "phase_s": seconds, "transactions": len(waits), "p50_ms": pick(0.5),
                       "p99_ms": pick(0.99), "max_ms": pick(1.0), "errors": said.count("ERROR")}
            self.figures.append(figures)
            print(f"{figures['work']:<34} {size:>9}  p50 {figures['p50_ms']:.1f} ms  p99 {figures['p99_ms']:.1f} ms  "
                  f"max {figures['max_ms']:.0f} ms  {figures['errors']} errors of {len(waits)}", flush=True)


def growth(figures, work):
    """By which power of the rows the time grows, over the sizes."""
    points = [(math.log(f["size"]), math.log(f["tollgate_s"])) for f in figures if f["work"] == work and f.get("tollgate_s")]
    if len(points) < 2:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    return (y1 - y0) / (x1 - x0)


def table(figures):
    lines = ["| work | virtual keys | Tollgate | limit | ratio | memory | growth |", "|---|---:|---:|---:|---:|---:|---:|"]
    for f in figures:
        if "tollgate_s" not in f:
            continue
        limit = f"{f['limit_s']:.2f} s" if f["limit_s"] else "–"
        ratio = f"{f['tollgate_s'] / f['limit_s']:.2f}" if f["limit_s"] else "–"
        grown = growth(figures, f["work"])
        lines.append(f"| {f['work']} | {f['size']:,} | {f['tollgate_s']:.2f} s | {limit} | {ratio} | {f['memory_mib']:.0f} MiB | "
                     f"{'–' if grown is None else f'{grown:.2f}'} |")
    waits = [f for f in figures if "p99_ms" in f]
    if waits:
        lines += ["", "| writers during | virtual keys | p50 | p99 | max | errors |", "|---|---:|---:|---:|---:|---:|"]
        lines += [f"| {f['work'].split()[-1]} | {f['size']:,} | {f['p50_ms']:.1f} ms | {f['p99_ms']:.1f} ms | {f['max_ms']:.0f} ms | "
                  f"{f['errors']} of {f['transactions']:,} |" for f in waits]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--binary", default="target/release/tollgate")
    parser.add_argument("--out", default="target/bench")
    given = parser.parse_args()
    only = set(filter(None, given.only.split(",")))
    wanted = lambda work: not only or work in only
    sizes = [int(size) for size in given.sizes.split(",")]
    binary = str(Path(given.binary).resolve())
    # What is ended from outside leaves no server behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = Server()
    try:
        bench = Bench(server, binary, given.rounds)
        governed = ("governance_budgets", "governance_virtual_keys", "governance_virtual_key_provider_configs")
        for size in sizes:
            server.sql("postgres", "CREATE DATABASE legacy")
            timed(bench.tollgate("legacy", "seed", "--profile", "bifrost-legacy", "--virtual-keys", str(size)))
            server.sql("legacy", "VACUUM ANALYZE")
            up = lambda database: bench.tollgate(database, "migrate", "up", "--adopt")
            if wanted("up"):
                bench.compare("up --adopt, all phases", size, "legacy", up, lambda d: bench.psql(d, HERE / "limit/up.sql"), governed)
                bench.compare("up, the limit as a loop of rows", size, "legacy", up, lambda d: bench.psql(d, HERE / "instead/up-per-row.sql"),
                              rounds=1)
            if wanted("writers"):
                bench.writers(size, "legacy")
            if wanted("doctor"):
                bench.compare("doctor", size, "legacy", lambda d: bench.tollgate(d, "doctor"), None)
            server.copy("legacy", "migrated")
            timed(up("migrated"))
            server.sql("migrated", "UPDATE governance_budgets SET last_reset = now() WHERE abs(hashtext(id)) % 10 <> 0")
            server.sql("migrated", "UPDATE governance_rate_limits SET token_last_reset = now(), request_last_reset = now() "
                                   "WHERE abs(hashtext(id)) % 10 <> 0")
            server.sql("migrated", "VACUUM FULL ANALYZE")
            if wanted("resets"):
                bench.compare("reconcile resets, 10 % due", size, "migrated", lambda d: bench.tollgate(d, "reconcile", "resets"),
                              lambda d: bench.psql(d, HERE / "limit/resets.sql"), ("governance_budgets", "governance_rate_limits"))
                timed(bench.tollgate("migrated", "reconcile", "resets"))
                bench.compare("reconcile resets, nothing due", size, "migrated", lambda d: bench.tollgate(d, "reconcile", "resets"),
                              lambda d: bench.psql(d, HERE / "limit/resets.sql"))
            if wanted("snapshot"):
                out = f"{server.home}/snapshot.json"
                dump = f"{program('pg_dump')} --data-only '%s' | sha256sum"
                bench.compare("snapshot (limit: pg_dump to sha256sum)", size, "migrated",
                              lambda d: bench.tollgate(d, "snapshot", "-o", out), lambda d: ["sh", "-c", dump % server.url(d)])
            if wanted("nothing"):
                bench.compare("up, nothing to do (limit: psql)", size, "migrated", up, lambda d: [program("psql"), "-qX", server.url(d), "-c", "SELECT 1"])
            for database in ("legacy", "migrated"):
                server.sql("postgres", f"DROP DATABASE {database}")
            if wanted("credentials"):
                # Ten credentials to a key, so that a tenth of the keys is as many rows.
                keys = max(size // 10, 100)
                server.sql("postgres", "CREATE DATABASE credentials")
                timed(bench.tollgate("credentials", "seed", "--profile", "bifrost-credentials", "--virtual-keys", str(keys)))
                timed(bench.tollgate("credentials", "migrate", "up", "--adopt"))
                server.sql("credentials", "VACUUM ANALYZE")
                kept = ("oauth_user_tokens", "oauth_user_sessions", "mcp_per_user_header_credentials", "mcp_per_user_header_flows")
                bench.compare("reconcile credentials, ten a key", keys, "credentials", lambda d: bench.tollgate(d, "reconcile", "credentials"),
                              lambda d: bench.psql(d, HERE / "limit/credentials.sql"), kept)
                server.sql("postgres", "DROP DATABASE credentials")
    finally:
        server.stop()
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    shown = table(bench.figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    (out / "bench.md").write_text(f"{machine}, {time.strftime('%Y-%m-%d')}\n\n{shown}\n")
    (out / "bench.json").write_text(json.dumps({"machine": machine, "figures": bench.figures}, indent=1))
    print(f"\n{shown}\n\n{out}/bench.md, {out}/bench.json")


main()
