# `just` lists the recipes.
default:
    @just --list

# Everything that CI does
ci:
    .ci/run

# The tests, on both backends
test *ARGS:
    cargo test --workspace {{ARGS}}

# Formatting and lints
lint:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings

# The main job on a made-up database
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# A PostgreSQL image from Debian's packages, where no registry of images is reachable
image:
    scripts/postgres-image.sh

# The large tests at the sizes of the published figures, with the figures
measure:
    TOLLGATE_TEST_SCALE=20 cargo test -p tollgate-tests --test integration -- --nocapture --test-threads 1 online resume

# What Tollgate takes beside the same by hand: one table, in Markdown and JSON (`--sizes 10000,100000,1000000`, `--help`)
bench *ARGS:
    cargo build --release --locked
    python3 benches/bench.py {{ARGS}}

# Calls per second of what a gateway asks at run time, beside the bare queries
bench-runtime:
    cargo bench -p tollgate-tests --bench runtime

# Writes the golden schemas anew; read the diff before committing it
golden:
    TOLLGATE_GOLDEN=write cargo test -p tollgate-tests --test integration golden::every_step

# Every migration and routine, made to fail and killed at every statement, with the table of outcomes
faults:
    TOLLGATE_FAULTS=all cargo test -p tollgate-tests --test integration -- --nocapture fault_injection

# What a release must pass besides CI: other servers, PgBouncer in both modes, every fault; an hour or more
release-check *PARTS:
    scripts/release-check.sh {{PARTS}}

# Every real database of a folder, with a release build: DIR holds `try` (see its own usage)
real DIR SERVER="":
    cargo build --release
    python3 {{DIR}}/try target/release/tollgate {{SERVER}}
