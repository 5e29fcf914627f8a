//! One PostgreSQL server per test binary, from the first way that works.

use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testcontainers::core::{IntoContainerPort, Mount};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

static SERVER: OnceLock<Result<String, String>> = OnceLock::new();

/// The address of the server's maintenance database.
///
/// # Panics
/// When no way works, with every reason and the ways there are.
pub fn url() -> &'static str {
    match SERVER.get_or_init(start) {
        Ok(url) => url,
        Err(reasons) => panic!(
            "no PostgreSQL for the tests:\n{reasons}\n\
             Give one of:\n\
             - TOLLGATE_TEST_POSTGRES=postgres://user:password@host/database, whose user may create databases;\n\
             - Docker and an image: `scripts/postgres-image.sh` builds one, then \
             TOLLGATE_TEST_POSTGRES_IMAGE=tollgate-postgres:local;\n\
             - PostgreSQL's server binaries (Debian: apt-get install postgresql)."
        ),
    }
}

fn start() -> Result<String, String> {
    let wish = std::env::var("TOLLGATE_TEST_POSTGRES").unwrap_or_default();
    match wish.as_str() {
        "container" => container(),
        "local" => local(),
        url if url.starts_with("postgres") => Ok(url.to_owned()),
        "" => container()
            .or_else(|container| local().map_err(|local| format!("{container}\n{local}"))),
        other => Err(format!(
            "TOLLGATE_TEST_POSTGRES={other} is neither an address nor `container` nor `local`"
        )),
    }
}

/// A process that ends a server when this one is gone, however it ended: its standard input closes with us.
fn watch(script: &str) -> Result<Child, String> {
    Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("- no shell: {error}"))
}

fn container() -> Result<String, String> {
    let image = std::env::var("TOLLGATE_TEST_POSTGRES_IMAGE")
        .unwrap_or_else(|_| "postgres:17-alpine".to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    let request = GenericImage::new(name, tag)
        .with_exposed_port(5432.tcp())
        // A quarter of the suite's time goes to files of databases that live for a second.
        .with_mount(Mount::tmpfs_mount("/var/lib/postgresql/data"))
        .with_env_var("POSTGRES_PASSWORD", "tollgate")
        .with_cmd([
            "-c",
            "fsync=off",
            "-c",
            "synchronous_commit=off",
            "-c",
            "full_page_writes=off",
            "-c",
            "max_connections=300",
        ])
        .with_startup_timeout(Duration::from_secs(60));
    // The container outlives this function, so its runtime does too.
    let started = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
        let found = runtime.block_on(async {
            let starting = tokio::time::timeout(Duration::from_secs(90), request.start());
            let container = starting
                .await
                .map_err(|_| "it did not start within 90 s".to_owned())?
                .map_err(|error| error.to_string())?;
            let port = container
                .get_host_port_ipv4(5432.tcp())
                .await
                .map_err(|error| error.to_string())?;
            let id = container.id().to_owned();
            std::mem::forget(container);
            Ok::<_, String>((id, port))
        });
        std::mem::forget(runtime);
        found
    })
    .join()
    .unwrap_or_else(|_| Err("its thread failed".to_owned()));
    let (id, port) = started.map_err(|reason| format!("- container from {image}: {reason}"))?;
    std::mem::forget(watch(&format!("cat; docker rm -f -v {id}"))?);
    answering(format!(
        "postgres://postgres:tollgate@127.0.0.1:{port}/postgres"
    ))
}

fn binaries() -> Option<std::path::PathBuf> {
    let mut found: Vec<std::path::PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|bin| bin.join("initdb").exists())
    })
}

/// Where a server's files go: into memory where there is room for some hundred databases, for a quarter of the suite's
/// time goes to files that live for a second.
fn place_of_files() -> std::path::PathBuf {
    const MEMORY: &str = "/dev/shm";
    const ROOM_KIB: u64 = 4 * 1024 * 1024;
    let room = Command::new("df")
        .args(["-Pk", MEMORY])
        .output()
        .ok()
        .and_then(|output| {
            let text = String::from_utf8(output.stdout).ok()?;
            let mut fields = text.lines().nth(1)?.split_whitespace();
            fields.nth(3)?.parse::<u64>().ok()
        });
    if room.is_some_and(|free| free >= ROOM_KIB) {
        MEMORY.into()
    } else {
        std::env::temp_dir()
    }
}

fn local() -> Result<String, String> {
    let bin = binaries().ok_or("- local: no PostgreSQL server binaries on this machine")?;
    let folder = tempfile::Builder::new()
        .prefix("tollgate-postgres-")
        .tempdir_in(place_of_files())
        .map_err(|error| format!("- local: {error}"))?
        .keep();
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    // PostgreSQL refuses to run as root.
    let as_user = if root {
        "setpriv --reuid=postgres --regid=postgres --init-groups"
    } else {
        ""
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("- local: {error}"))?
        .port();
    let (bin, data) = (bin.display(), folder.display());
    let own = if root {
        format!("chown postgres {data}")
    } else {
        "true".to_owned()
    };
    let prepare = format!(
        "{own} && cd {data} && {as_user} {bin}/initdb -D {data}/data -U postgres -E UTF8 --locale=C.UTF-8 \
         --auth=trust --no-sync"
    );
    let output = Command::new("sh")
        .args(["-c", &prepare])
        .output()
        .map_err(|error| format!("- local: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "- local: initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    // SIGINT is PostgreSQL's fast shutdown.
    std::mem::forget(watch(&format!(
        "cd {data}; {as_user} {bin}/postgres -D {data}/data -p {port} -k {data} -c listen_addresses=127.0.0.1 \
         -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 </dev/null & server=$!; \
         cat; kill -INT $server; wait $server; rm -rf {data}"
    ))?);
    answering(format!("postgres://postgres@127.0.0.1:{port}/postgres"))
}

/// Waits until the server answers.
fn answering(url: String) -> Result<String, String> {
    let address = url::Url::parse(&url)
        .ok()
        .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port()?)))
        .ok_or("- the server's address cannot be read")?;
    let probe = url.clone();
    let begun = Instant::now();
    loop {
        let probe = probe.clone();
        let ready = std::net::TcpStream::connect(&address).is_ok()
            && std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .ok()?;
                runtime
                    .block_on(<sqlx::PgConnection as sqlx::Connection>::connect(&probe))
                    .ok()
                    .map(|_| ())
            })
            .join()
            .ok()
            .flatten()
            .is_some();
        if ready {
            return Ok(url);
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!(
                "- the server at {address} did not answer within 60 s"
            ));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
