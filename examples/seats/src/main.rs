//! Tollgate's command line over the seats of a chat product, and nothing else.

fn main() -> std::process::ExitCode {
    let tracks = tollgate_cli::Registry::empty().with(&seats::MODULE);
    tollgate_cli::main(tracks.called("seats"))
}
