//! Which commands are about one track's tables: the one place of the command line that names tracks.

use tollgate_service::Track;

/// The track's commands; a routine with the word `reconcile` before its own.
const OF_TRACKS: [(Track, &[&str]); 3] = [
    (
        Track::GOVERNANCE,
        &[
            "mcp-client",
            "virtual-key",
            "provider-config",
            "budget",
            "seed",
            "demo",
            "reconcile config",
            "reconcile credentials",
            "reconcile flows",
            "reconcile header-keys",
            "reconcile header-requirements",
            "reconcile resets",
        ],
    ),
    (
        Track::PROVIDERS,
        &["provider-key", "gateway-key", "reconcile provider-keys"],
    ),
    (
        Track::BILLING,
        &["billing-mode", "workspace-secret", "reconcile billing"],
    ),
];

/// The track whose tables a command is about, by the name that the command has in the JSON answer.
pub(crate) fn track_of(name: &str) -> Option<Track> {
    let is_of = |command: &&str| {
        name.strip_prefix(command)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    OF_TRACKS
        .iter()
        .find(|(_, commands)| commands.iter().any(is_of))
        .map(|(track, _)| *track)
}

/// Leaves the commands of tracks that this program does not have out of its help.
pub(crate) fn hide_absent(mut command: clap::Command) -> clap::Command {
    let absent = OF_TRACKS
        .iter()
        .filter(|(track, _)| !Track::all().contains(track))
        .flat_map(|(_, commands)| *commands);
    for absent in absent {
        command = match absent.split_once(' ') {
            None => command.mut_subcommand(absent, |command| command.hide(true)),
            Some((group, word)) => command.mut_subcommand(group, |group| {
                group.mut_subcommand(word, |command| command.hide(true))
            }),
        };
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_of_the_track_whose_words_begin_its_name() {
        for (name, track) in [
            ("budget check", Some(Track::GOVERNANCE)),
            ("reconcile resets", Some(Track::GOVERNANCE)),
            ("reconcile provider-keys", Some(Track::PROVIDERS)),
            ("provider-key resolve", Some(Track::PROVIDERS)),
            ("provider-config delete", Some(Track::GOVERNANCE)),
            ("reconcile billing", Some(Track::BILLING)),
            ("billing-mode get", Some(Track::BILLING)),
            ("reconcile all", None),
            ("migrate up", None),
        ] {
            assert_eq!(track_of(name), track, "{name}");
        }
    }
}
